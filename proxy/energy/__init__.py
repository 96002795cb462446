"""Energy sources: device names and settings in, stamped readings of counters or power (``Sample``) out.

Reading order:

- ``source``: the contract of an energy source (``Source``, ``Found``, ``SensorError``).
- ``choice``: opens the configured sources of the register :mod:`proxy.config.sources`.
- ``device_names``, ``filtered_source``, ``groups``: which devices are read, and which backend uses which.
- ``sources``: a module for each kind of source.
- ``sampling``: the thread that reads a source, and the update times of its counters.
"""
