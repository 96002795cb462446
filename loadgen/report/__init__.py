"""Reports of a run: terminal, HTML, CSV, curves and comparisons.

In: a run and its records, as loaded from a run directory. Out: text and files, the same bytes each time.

- ``terminal``: progress and results during a run
- ``table``: points as rows of text, shared by terminal and HTML page
- ``rebuild``: all files that are made from a run
- ``html_page``: ``report.html``
- ``figures``: all figures of a run; None without matplotlib
- ``plot``: the throughput-per-watt curve
- ``charts``: latency distributions, power and joules
- ``csv_export``: points and requests as CSV
- ``compare``: the differences between two runs
"""
