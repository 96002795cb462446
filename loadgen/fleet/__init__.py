"""Several workers as one load generator (``--workers``, ``--ray``).

In: a configuration. Out: for each point one ``Outcome``, merged from all workers. They share one schedule,
of which each sends every N-th request.

- ``leader``: start, clock offsets and merge of the workers
- ``remote``: the interface of a worker as the leader uses it
- ``worker``: the part of one worker
- ``subprocesses``: workers as processes of this machine
- ``ray_actors``: workers as actors of a Ray cluster
"""
