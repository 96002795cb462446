"""Fitted models: how long a step takes, and what it costs.

Read in this order: ``step_time`` (form and terms of the time of a step), ``fairness`` (the fair share of
that time), ``pricing`` (seconds of each entry of work), ``model`` (joules per step, token and second),
``device_model`` (the models of one device), ``term_doubt`` (what their uncertainty means for one
request).
"""
