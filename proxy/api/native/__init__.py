"""Token counts of the engines' own APIs: one module for each engine.

An endpoint names the dialects that its responses may be in (``dialects`` in ``proxy.api.endpoints``); a
response is in the first one whose marks it has, else it is read like one of the OpenAI API.

- ``dialect``: what a dialect is; the counts of one response, of all its answers.
- ``llamacpp``, ``ollama``, ``sglang``, ``tgi``: the dialects.
- ``lines``: split a stream of JSON lines.
"""
