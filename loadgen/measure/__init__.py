"""Metrics of a point. Pure: no clock, no I/O.

In: the records of a point. Out: its summary.

- ``window``: the part of a point that counts, after the warm-up
- ``metrics``: latencies, percentiles with confidence intervals, SLO verdicts
- ``summary``: the summary of a point, and whether the generator was the bottleneck
- ``operating_points``: the best point of a sweep and the Pareto frontier
"""
