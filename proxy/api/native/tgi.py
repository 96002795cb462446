"""Text Generation Inference's ``/generate`` and ``/generate_stream`` (router/src/server.rs and lib.rs).

Each event of a stream has one token; the last has ``details``. A complete response has ``details`` only if
the client requested them, and their ``prefill`` only if it requested that; but its headers have the counts.
"""

from typing import Final

import msgspec

from proxy.api.native.dialect import Dialect, Part


class Token(msgspec.Struct, gc=False):
    """``token`` of an event."""

    id: int | None = None


class Details(msgspec.Struct, gc=False):
    """``details`` of a response, or of the last event of a stream."""

    finish_reason: str | None = None
    generated_tokens: int | None = None
    input_length: int | None = None  # of streams
    prefill: list[msgspec.Raw] | None = None


class Generated(msgspec.Struct, gc=False):
    """A response, or one event of a stream."""

    token: Token | None = None
    details: Details | None = None


def _part(body: Generated) -> Part:
    details = body.details or Details()
    prompt = details.input_length if details.input_length is not None else len(details.prefill or ())
    return Part(
        tokens=1 if body.token is not None else 0,
        output=details.generated_tokens,
        prompt=prompt or None,
        finish_reason=details.finish_reason,
    )


TGI: Final = Dialect(("generated_text",), Generated, _part, (b"x-prompt-tokens", b"x-generated-tokens"))
