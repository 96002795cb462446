"""The load generator: load an OpenAI-compatible server and measure latency, throughput and joules.

In: command-line options. Out: an exit status and a run directory with the records of all requests, a summary
of each point, a report and curves.

The packages in the order of a run, each importing only those above it in this list:

- ``workload``: request bodies, lengths, arrival times, data sets and traces
- ``results``: the records of requests, points and runs, and their files
- ``config``: options and the specification of a run
- ``client``: the HTTP client that stamps what it reads
- ``measure``: metrics, measurement windows and the summary of a point. Pure
- ``drive``: the attack, which sends requests when the pacer says so
- ``energy``: joules from the proxy's admin port or from local devices
- ``fleet``: several worker processes or Ray actors as one load generator
- ``run``: the session, which measures the points of a grid one after the other
- ``report``: table, HTML page, curves, CSV and the comparison of two runs
- ``search``: the search for the highest load within the SLO
- ``virtual``: grids and searches against a simulator in virtual time
- ``run_command``: the subcommands ``run`` and ``sweep``, which compose the packages
- ``selfcheck``: the load generator's own error, measured against a server of known latency
- ``cli``: the dispatch to subcommands, and the exit status
"""
