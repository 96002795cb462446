"""Joules of points and requests.

In: the window of a point and its records. Out: the records with their joules, and the energy of the window,
or the reason why it is unknown.

- ``metering``: selection of the source, and the energy of a point from it
- ``admin``: client of the proxy's admin port
- ``accounts``: join of the proxy's accounts with records. Pure
- ``nvml``: sampling and power limits of local NVIDIA GPUs, without a proxy
- ``counters``: interpolation of energy counters. Pure
"""
