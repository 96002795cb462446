"""Request bodies and arrival times. The same seed gives the same bytes at the same times.

In: a specification, data sets, traces. Out: request bodies by index, and arrival times.

- ``request_bodies``: bodies of requests by index
- ``lengths``: distributions of prompt and output lengths
- ``arrivals``: arrival processes: Poisson, gamma, ramps, sines, traces
- ``datasets``: conversations of OpenAI's and ShareGPT's format
- ``traces``: recorded arrival times and lengths
- ``row_reader``: row-by-row reading of JSON, JSONL and compressed files
- ``tokenizer``: token counts by a local tokenizer
- ``images``: generated PNG images for vision inputs
"""
