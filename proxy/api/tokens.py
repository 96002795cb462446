# Compiled by mypyc: see setup.py.
"""Whether a choice or an event of a stream carries output.

Engines send one chunk for each step of decoding in which a request got a token, so counting chunks with
output counts tokens wherever usage does not, and the first of them sets the time to first token.

An *empty* text counts: vLLM and SGLang send a chunk with ``"content": ""`` or ``"text": ""`` for a special
token, or while the bytes of a character are incomplete. A chunk that names a ``role`` and has an empty text
is the opening chunk of a choice and carries none. An empty list of tool calls carries none.
"""

from typing import Final

from proxy.api.fields import Audio, Choice, Delta, EventDelta, FunctionCall, ResponseBody

# Deltas of the Messages API that annotate output and are none themselves.
_ANNOTATIONS: Final[tuple[str, ...]] = ("signature_delta", "citations_delta")


def delta_has_output(delta: Delta) -> bool:
    """Return whether the delta (or message) of a chat choice carries output of any kind."""
    content = delta.content
    if content is not None and (content or (isinstance(content, str) and delta.role is None)):
        return True
    if delta.reasoning_content or delta.reasoning or delta.tool_calls or delta.refusal:
        return True
    return _has_rare_output(delta)


def _has_rare_output(delta: Delta) -> bool:
    call: FunctionCall | None = delta.function_call
    audio: Audio | None = delta.audio
    if call is not None and (call.name or call.arguments):
        return True
    if audio is not None and (audio.data or audio.transcript):
        return True
    return bool(delta.reasoning_details or delta.images)


def choice_has_output(choice: Choice) -> bool:
    """Return whether a choice of chat or completions carries output."""
    delta = choice.delta
    if delta is None:
        return choice.text is not None or (choice.message is not None and delta_has_output(choice.message))
    return delta_has_output(delta)


def event_has_output(body: ResponseBody) -> bool:
    """Return whether an event that has a ``type`` (responses, messages, audio, images) carries output.

    Every delta counts, of whatever kind: text, reasoning and its summaries, refusals, arguments of
    functions and of custom tools, code, audio. So does a preview of an image.
    """
    kind = body.type
    if kind is None:
        return False
    if kind == "content_block_delta":
        delta = body.delta
        return not (isinstance(delta, EventDelta) and delta.type in _ANNOTATIONS)
    return kind.endswith((".delta", ".partial_image"))


def event_completes_output(body: ResponseBody) -> bool:
    """Return whether an event of the Responses API repeats streamed output, or brings all of it at once.

    A server that streams no deltas (of a function call, of an image) sends only these: then they are the
    first output a client sees.
    """
    kind = body.type
    return kind is not None and kind.startswith("response.") and kind.endswith(".done")
