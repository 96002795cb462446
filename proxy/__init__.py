"""jouleproxy: a reverse proxy that measures the energy of each request to a model server.

::

    client --HTTP--> relay ------bytes------> backend (vLLM, SGLang, diffusion server)
                       | events (arrive, output, end)        | metrics, spans, steps (optional evidence)
                       v                                      v
    devices --samples--> core : timeline -> steps -> fit -> shares        (pure, no I/O, no clock)
                       | RequestEnergy records, device accounts, model terms
                       v
                    exporters : OpenTelemetry spans, Prometheus, ledger, response usage, dashboard

Relay workers forward bytes and send events. One meter process per host owns the sampler, the core and the
exporters. Serving never depends on measuring. ``docs/architecture.md`` describes the processes and packages.
"""
