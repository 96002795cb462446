"""HTTP/1.1 messages without I/O (RFC 9110, RFC 9112).

In: bytes of a header section or of a body. Out: parsed heads, payload, and the header section to send on.

Read in this order:

- ``framing``: where a body ends: by length, by chunks, by the end of the connection.
- ``heads``: parse and validate the heads of requests and responses.
- ``header_cache``: reuse the last parsed head of a connection.
- ``trace_context``: W3C ``traceparent``.
- ``headers``: the header section that the other side receives.
"""
