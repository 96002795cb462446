"""Sampling: an opened source in, its readings at the right times out.

- ``sampler``: the thread that reads one source at absolute deadlines.
- ``edges``: period and phase of a counter's updates, and the update that a reading shows. Pure.
- ``probe``: measures both by polling the counters closely at start.
"""
