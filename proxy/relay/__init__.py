"""The relay: forward requests to backends and responses to clients, and report timings to the meter.

In: HTTP/1.1 from clients, over TCP or TLS. Out: the same requests to a backend, its responses byte for byte
to the client, and messages (``proxy.ipc``) over a Unix socket to the meter. Each worker process runs
one event loop; workers share nothing but the listening port.

Read in this order:

- ``http``: message heads, body framing and header fields, without I/O.
- ``upstreams``: choose a backend; its health; connections to it.
- ``response``: read a response, edit it where energy or usage was requested, forward matching chunks.
- ``exchange``: one request and its response as a state machine.
- ``client_interface``, ``client_connection``: the client's side.
- ``meter_link``, ``request_meter``: events of a request to the meter.
- ``context``: what the connections of a worker share.
- ``worker``: the process: listen, sweep timeouts, reload, drain.
"""
