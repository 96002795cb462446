"""The kinds of energy sources, each an implementation of :class:`proxy.energy.source.Source`.

- ``nvml`` (with ``nvml_calls`` and ``ring``): NVIDIA GPUs of this host.
- ``zeus``: GPUs, CPU packages and SoCs through Zeus, and zeusd on another host.
- ``prometheus`` (with ``exposition``): an exporter's page or a Prometheus server.
- ``agent`` (with ``agent_protocol`` and ``remote_clock``): a ``jouleproxy agent`` on another host.
- ``estimate``: utilisation times stated watts; not a measurement.
- ``replay``, ``simulated``: a recorded timeline, the devices of a simulator.
"""
