"""One run: preflight, the points of its grid, energy, verdict.

In: a ``Config``. Out: a ``Run`` and the records of all requests. A search is passed in as a function, since
``loadgen.search`` uses this package.

- ``session``: the run
- ``view``: the interface for progress reports
"""
