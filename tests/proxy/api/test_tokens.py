"""Which choices and events carry output."""

from typing import Any, TypeVar

import msgspec
import pytest

from proxy.api.fields import Choice, ResponseBody
from proxy.api.tokens import choice_has_output, event_completes_output, event_has_output

T = TypeVar("T")


def decoded(value: dict[str, Any], type_: type[T]) -> T:
    return msgspec.json.decode(msgspec.json.encode(value), type=type_)


@pytest.mark.parametrize(
    "choice",
    [
        {"text": "a"},
        {"text": ""},  # a special token, or half a character
        {"delta": {"content": "a"}},
        {"delta": {"content": ""}},
        {"delta": {"role": "assistant", "content": "a"}},
        {"delta": {"content": [{"type": "text", "text": "a"}]}},
        {"delta": {"content": "", "tool_calls": [{"index": 0, "function": {"arguments": ""}}]}},
        {"delta": {"role": "assistant", "content": None, "tool_calls": [{}]}},
        {"delta": {"reasoning_content": "a"}},
        {"delta": {"reasoning": "a"}},
        {"delta": {"reasoning_details": [{}]}},
        {"delta": {"refusal": "no"}},
        {"delta": {"function_call": {"name": "f", "arguments": ""}}},
        {"delta": {"function_call": {"arguments": "{"}}},
        {"delta": {"audio": {"data": "UklG"}}},
        {"delta": {"audio": {"transcript": "a"}}},
        {"delta": {"images": [{}]}},
        {"message": {"role": "assistant", "content": "a"}},
    ],
)
def test_output(choice: dict[str, Any]) -> None:
    assert choice_has_output(decoded(choice, Choice))


@pytest.mark.parametrize(
    "choice",
    [
        {},
        {"finish_reason": "stop"},
        {"delta": {}},
        {"delta": {"role": "assistant"}},
        {"delta": {"role": "assistant", "content": "", "refusal": None}},
        {"delta": {"content": None}},
        {"delta": {"content": []}},
        {"delta": {"tool_calls": []}},
        {"delta": {"tool_calls": None}},
        {"delta": {"reasoning_content": ""}},
        {"delta": {"function_call": {}}},
        {"delta": {"audio": {"transcript": ""}}},
        {"message": {"role": "assistant", "content": None}},
    ],
)
def test_no_output(choice: dict[str, Any]) -> None:
    assert not choice_has_output(decoded(choice, Choice))


@pytest.mark.parametrize(
    "kind",
    [
        "response.output_text.delta",
        "response.refusal.delta",
        "response.reasoning_text.delta",
        "response.reasoning_summary_text.delta",
        "response.function_call_arguments.delta",
        "response.custom_tool_call_input.delta",
        "response.mcp_call_arguments.delta",
        "response.code_interpreter_call_code.delta",
        "response.audio.delta",
        "response.output_audio_transcript.delta",
        "response.image_generation_call.partial_image",
        "speech.audio.delta",
        "transcript.text.delta",
        "content_block_delta",
    ],
)
def test_deltas_of_every_kind_are_output(kind: str) -> None:
    assert event_has_output(ResponseBody(type=kind))


@pytest.mark.parametrize("kind", ["text_delta", "thinking_delta", "input_json_delta", None])
def test_deltas_of_messages(kind: str | None) -> None:
    assert event_has_output(decoded({"type": "content_block_delta", "delta": {"type": kind}}, ResponseBody))


@pytest.mark.parametrize(
    "event",
    [
        {"type": "message_start"},
        {"type": "content_block_start"},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}},
        {"type": "content_block_delta", "delta": {"type": "signature_delta"}},
        {"type": "content_block_delta", "delta": {"type": "citations_delta"}},
        {"type": "ping"},
        {"type": "response.created"},
        {"type": "response.completed"},
        {},
    ],
)
def test_events_without_output(event: dict[str, Any]) -> None:
    assert not event_has_output(decoded(event, ResponseBody))


def test_an_event_that_completes_output() -> None:
    assert event_completes_output(ResponseBody(type="response.output_item.done"))
    assert not event_completes_output(ResponseBody(type="response.completed"))
    assert not event_completes_output(ResponseBody(type="speech.audio.done"))
