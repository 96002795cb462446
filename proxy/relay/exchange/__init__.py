"""One request and its response.

In: a parsed request head and body bytes from the client connection, a response from a backend connection.
Out: calls of both connections, and of the meter.

Read in this order:

- ``request``: the request, the fields read of its body.
- ``replay``: when a request may be sent a second time.
- ``held_error``: hold an error response until it is known whether the backend rejects ``stream_options``,
  or another backend has the job.
- ``choice``: which backend gets it.
- ``states``: the states of an exchange and the transitions between them.
- ``reports``: what an exchange reports to the meter and to the balancer.
- ``exchange``: the exchange itself.
"""
