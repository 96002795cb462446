"""SGLang's ``/generate`` (docs/basic_usage/native_api.ipynb, srt/managers/tokenizer_manager.py).

Events repeat the text so far; ``completion_tokens`` counts what it has. Several prompts, or several samples,
are an array, or events with an ``index``; each has its own prompt.
"""

from typing import Final

import msgspec

from proxy.api.native.dialect import Dialect, Part


class FinishReason(msgspec.Struct, gc=False):
    """``{"type": "length", "length": 16}``, ``{"type": "stop", "matched": 2}``, ..."""

    type: str | None = None


class MetaInfo(msgspec.Struct, gc=False):
    """``meta_info``."""

    id: str | None = None
    finish_reason: FinishReason | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cached_tokens: int | None = None


class Generated(msgspec.Struct, gc=False):
    """A response, or one event of a stream."""

    index: int | None = None
    meta_info: MetaInfo | None = None


def _part(body: Generated) -> Part:
    info = body.meta_info or MetaInfo()
    return Part(
        index=body.index or 0,
        output=info.completion_tokens,
        prompt=info.prompt_tokens,
        cached=info.cached_tokens,
        finish_reason=info.finish_reason.type if info.finish_reason is not None else None,
        response_id=info.id,
    )


SGLANG: Final = Dialect(("meta_info",), Generated, _part)
