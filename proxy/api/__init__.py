"""The dialect of OpenAI-compatible APIs: bodies, events, tokens, usage, errors.

Pure: bytes in, values out; for the relay, the meter and the load generator.

One place for what a body, an event or a usage object means, so that both programs count the same tokens:

- ``scan``: find the members of a JSON object of any size, incrementally, without parsing their values.
- ``lenient``: decode JSON into a typed struct; what one field cannot be read does not void the others.
- ``fields``: the structs: request bodies, responses and streamed events of all APIs, model lists.
- ``body``: read a complete JSON response in bounded memory.
- ``encoding``: decompress responses incrementally.
- ``usage``: token counts in the terms of each provider.
- ``tokens``: whether a choice or an event carries output.
- ``native``: token counts of the engines' own APIs.
- ``endpoints``: the table of endpoints: which are metered, read, asked for usage.
- ``edit``: change one member of a JSON object, all other bytes as they were.
- ``forms``: fields of forms, which uploads come in.
- ``stream_options``: ask for usage in the client's stead.
- ``errors``: the shape of an error body.
- ``sse``: split a stream into server-sent events.
- ``chunks``: recognize HTTP chunks that differ from the one before in their text only.
"""
