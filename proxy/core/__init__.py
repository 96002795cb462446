"""The core: events in, joules of requests out. No I/O, no clock, no threads.

``events`` are all that it receives, in order of time; ``attribution`` drives the rest. Its packages, from the
bottom: ``numerics``, ``activity`` (requests and outputs), ``energy`` (readings to joules of devices), ``fit``
(time and energy of a step), ``reconstruct`` (the steps of an engine), ``replicas`` (the engines behind a
backend). ``policies`` and ``charging`` divide the energy of a device; ``shares`` and ``intervals`` make the
result of a request; ``ledger`` keeps finished records.
"""
