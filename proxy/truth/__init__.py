"""Simulated engines whose fair share of each request is known: the ground truth of attribution.

A case (``cases``, ``deployments``) describes an engine, its load and the view of the proxy. ``engine`` runs
the first kind, ``fleet`` the second on a ``machine``; ``sensors`` turns the energy into readings of a driver.
Both return the events that a proxy would see and the joules that each request should get. None of them
imports the estimator: they share the event types of the timeline format with it, and nothing else.
"""
