"""Energy sources: device names and settings in, stamped readings of counters or power (``Sample``) out.

Reading order:

- ``source``: the contract of an energy source (``Source``, ``Found``, ``SensorError``).
- ``choice``: opens the configured sources; its table ``_MAKERS`` has one entry for each kind of source.
- ``device_names``, ``filtered_source``, ``groups``: which devices are read, and which backend uses which.
- ``nvml`` (with ``ring``), ``zeus``, ``prometheus`` (with ``exposition``), ``agent`` (with ``agent_protocol``
  and ``remote_clock``), ``estimate``, ``replay``, ``simulated``: one source each.
- ``sampler``: the thread that reads the sources; ``edges`` and ``probe`` locate the updates of a counter.
"""
