"""The HTTP/1.1 client of the load generator: bytes in, time stamps and token counts out.

In: complete requests as bytes. Out: for each response when its tokens arrived, how many, and its usage.
Nothing is retried: a failure is a result.

- ``transport``: sockets whose reads are stamped by the kernel
- ``http_client``: connections, the connection pool and the response parser
- ``responses``: readers of streamed and non-streamed response bodies
- ``chunk_template``: the fast path for chunks that differ from the one before in their text only
- ``text_capture``: the text of responses, for counts by a local tokenizer
- ``jobs``: asynchronous jobs (videos), polled until they end
"""
