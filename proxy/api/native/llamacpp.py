"""llama.cpp's ``/completion`` and ``/infill`` (tools/server/README.md, tools/server/server-task.cpp).

``tokens_evaluated`` is the entire prompt. ``tokens_cached`` is not read: it is the length of the slot's cache
at the end, prompt and output. The part of the prompt that was reused is ``timings.cache_n``; without that,
it is the prompt less ``timings.prompt_n``, the tokens that were processed.
"""

from typing import Final

import msgspec

from proxy.api.native.dialect import Dialect, Part


class Timings(msgspec.Struct, gc=False):
    """``timings`` of the last event or of the response."""

    cache_n: int | None = None
    prompt_n: int | None = None


class Completion(msgspec.Struct, gc=False):
    """A response, or one event of a stream."""

    index: int | None = None
    model: str | None = None
    tokens_predicted: int | None = None
    tokens_evaluated: int | None = None
    stop_type: str | None = None
    timings: Timings | None = None


def _part(body: Completion) -> Part:
    timings, prompt = body.timings or Timings(), body.tokens_evaluated
    cached = timings.cache_n
    if cached is None and timings.prompt_n is not None and prompt is not None:
        cached = prompt - timings.prompt_n
    return Part(
        index=body.index or 0,
        output=body.tokens_predicted,
        prompt=prompt,
        cached=cached,
        finish_reason=None if body.stop_type == "none" else body.stop_type,
        model=body.model,
    )


LLAMACPP: Final = Dialect(("tokens_predicted", "tokens_evaluated"), Completion, _part)
