"""Ollama's ``/api/generate``, ``/api/chat`` and ``/api/embed`` (docs/api.md).

Streams are JSON lines, one for each token; the last has ``done`` and the counts. ``prompt_eval_count`` is
absent where a server had the entire prompt in its cache: then the prompt is not known.
"""

from typing import Final

import msgspec

from proxy.api.native.dialect import Dialect, Part


class Message(msgspec.Struct, gc=False):
    """``message`` of a chat."""

    content: str | None = None
    thinking: str | None = None
    tool_calls: list[msgspec.Raw] | None = None


class Line(msgspec.Struct, gc=False):
    """A response, or one line of a stream."""

    model: str | None = None
    response: str | None = None
    thinking: str | None = None
    message: Message | None = None
    done_reason: str | None = None
    prompt_eval_count: int | None = None
    eval_count: int | None = None


def _part(line: Line) -> Part:
    message = line.message or Message()
    has_output = line.response or line.thinking or message.content or message.thinking or message.tool_calls
    return Part(
        tokens=1 if has_output else 0,
        output=line.eval_count,
        prompt=line.prompt_eval_count,
        finish_reason=line.done_reason,
        model=line.model,
    )


OLLAMA: Final = Dialect(("done", "prompt_eval_count"), Line, _part)
