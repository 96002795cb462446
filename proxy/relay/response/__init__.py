"""Responses: read token counts, edit events where requested, and forward matching chunks without parsing.

In: the head and the body of a backend's response. Out: the bytes for the client, and events for the meter.

Read in this order:

- ``reading``: tokens, usage and identifiers of a response; the role of an event in its stream.
- ``stream_editor``: hold and edit the last events of a stream.
- ``response``: one response from its head to its end.
- ``fast_path``: forward chunks that match the last one.
"""
