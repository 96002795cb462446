"""The meter process: messages of relays and readings of sensors in, energy records and the admin port out.

Reading order:

- ``process``: the event loop, the socket for relays and the sampler threads.
- ``intake``: sorts events of several processes by time.
- ``meter``: feeds the attribution and the ledger, hands finished records to the exporters.
- ``backends``: the state of the backends as the relays report it.
- ``admin``, ``query``, ``feed``: the HTTP endpoints of the admin port and the data of the dashboard.
- ``heartbeat``: records when the meter was last running, for the one started after it.
"""
