"""The attack: requests sent at the times a pacer decides, one record for each.

In: a workload, a pacer and a client. Out: an ``Outcome`` with the record of each request, the delays of the
event loop and the CPU share of the generator.

- ``pacer``: open loop, closed loop and a cap on requests in flight. Pure
- ``planning``: the workload and the pacer of a level, from a ``Spec``
- ``preflight``: checks of the server before the first point
- ``attack``: the scheduler of one point
- ``request``: one request in flight, until it is a record
- ``deadline_timer``: a timer with a resolution of microseconds
- ``event_loop``: selection of uvloop or asyncio
- ``garbage_collection``: suspension of the collector during a point
"""
