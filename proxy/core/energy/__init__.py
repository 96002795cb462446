"""Readings of sensors turned into the energy of devices over time.

In: ``Sample`` and ``Outside`` events. Out: joules of any span of time, with gaps where they are unknown,
and the account of each device. Read in this order: ``plausible`` (which readings can be true),
``energy_series`` (cumulative energy), ``outside`` (work that did not pass through the proxy),
``accounts``, ``power_timeline`` (for reports).
"""
