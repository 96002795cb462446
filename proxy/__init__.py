"""jouleproxy: the joules of one request, measured.

::

    client --HTTP--> relay ------bytes------> backend (vLLM, SGLang, diffusion server)
                       | events (arrive, output, end)        | metrics, spans, steps (optional evidence)
                       v                                      v
    devices --samples--> core : timeline -> steps -> fit -> shares        (pure, no I/O, no clock)
                       | RequestEnergy records, device accounts, model terms
                       v
                    exporters : OpenTelemetry spans, Prometheus, ledger, response usage, dashboard

The relay workers carry bytes and send events; one meter process per host owns the sampler, the core and
the exporters. Serving never depends on measuring.
"""
