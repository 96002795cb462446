"""``loadgen selfcheck``: the load generator measured against a server of known latency and power.

In: nothing. Out: a table of the client's own errors on this machine, and two cases with a known result.

- ``checks``: the command and its cases
- ``truth_server``: a server that sends tokens at known times and records when it did
- ``known_power``: a device of known power. Pure
"""
