"""``--simulate PROFILE``: runs in virtual time against a simulator instead of a server.

In: the same configuration as a real run. Out: the same run and records, marked as simulated.

- ``run``: a complete run, as a grid or a search
- ``search``: a search in virtual time
- ``attack``: one point in virtual time
- ``simulator``: the simulator as a subprocess
"""
