"""``--search``: find the knee, the highest load within the SLO.

In: the limits of the load, the objectives and a time budget. Out: a ``Knee`` with its 95 % interval.

- ``strategy``: which load to probe next, and when to stop. Pure
- ``capacity``: the rate at which the server works off a queue, which bounds the knee. Pure
- ``service_time``: the mean time that a request spends in the server, which shows a queue. Pure
- ``knee``: the estimate of the knee from all probes. Pure
- ``runner``: the probes, run against a server one after the other
"""
