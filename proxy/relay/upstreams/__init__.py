"""Backends: which one serves a request, whether it is healthy, and the connections to it.

In: the configured backends, the model and the affinity key of a request. Out: an open connection, and calls
of its ``ResponseHandler``.

Read in this order:

- ``health``: state of one backend, without I/O.
- ``sticky``: affinity keys and the hash ring, without I/O.
- ``balancer``: choose a backend, without I/O.
- ``connections``: connections to one backend and their pool.
- ``health_checks``: active health checks and model lists.
"""
