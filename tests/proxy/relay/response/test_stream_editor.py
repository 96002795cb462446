"""Where energy goes in a stream, and which usage is kept from the client."""

import msgspec
import pytest

from proxy.relay.response.reading import Reading, with_usage_energy, without_usage
from proxy.relay.response.stream_editor import StreamEditor

ENERGY = b'{"joules":7.5}'
COMMENT = b": energy " + ENERGY + b"\n\n"
DONE = b"data: [DONE]\n\n"
PING = b": ping\n\n"


def event(body: object, name: str = "") -> bytes:
    start = f"event: {name}\n".encode() if name else b""
    return start + b"data: " + msgspec.json.encode(body) + b"\n\n"


TOKEN = event({"choices": [{"delta": {"content": "a"}}]})
EARLY = event({"choices": [], "usage": None})
ZERO = event({"choices": [], "usage": {"prompt_tokens": 0}})
USAGE = event({"choices": [], "usage": {"prompt_tokens": 3}})
FINAL = event(
    {"choices": [{"delta": {"content": "z"}, "finish_reason": "stop"}], "usage": {"prompt_tokens": 3}}
)
EACH = event({"choices": [{"delta": {"content": "a"}}], "usage": {"prompt_tokens": 3}})
STOP = event({"type": "message_stop"}, "message_stop")
COMPLETED = event({"type": "response.completed", "response": {"id": "r"}}, "response.completed")
DELTA = event({"type": "response.output_text.delta", "delta": "a"}, "response.output_text.delta")


def edit(*events: bytes, energy: bool = True, ours: bool = False, rest: bytes = b"") -> list[bytes]:
    """The stream as the client gets it; where energy is awaited, it comes at once."""
    editor, reading = StreamEditor(energy=energy, usage_is_ours=ours), Reading()
    out = []
    for each in events:
        editor.add(each, reading.read_event(each)[1])
        if editor.awaits_energy:
            out.append(editor.drain())
            editor.put_energy(ENERGY)
        out.append(editor.drain())
    editor.end(rest)
    if editor.awaits_energy:
        out.append(editor.drain())
        editor.put_energy(ENERGY)
    out.append(editor.drain())
    assert editor.empty
    return [each for each in out if each]


def with_energy(chunk: bytes) -> bytes:
    return chunk.replace(b'"usage":{', b'"usage":{"energy":' + ENERGY + b",")


@pytest.mark.parametrize(
    ("stream", "expected"),
    [
        ([TOKEN, USAGE, DONE], [TOKEN, with_energy(USAGE), DONE]),
        ([EARLY, TOKEN, USAGE, DONE], [EARLY, TOKEN, with_energy(USAGE), DONE]),
        ([ZERO, TOKEN, USAGE, DONE], [ZERO, TOKEN, with_energy(USAGE), DONE]),
        ([ZERO, TOKEN, DONE], [ZERO, TOKEN, COMMENT, DONE]),
        ([EACH, EACH, USAGE, DONE], [EACH, EACH, with_energy(USAGE), DONE]),
        ([TOKEN, FINAL, DONE], [TOKEN, with_energy(FINAL), DONE]),
        ([TOKEN, FINAL, TOKEN, DONE], [TOKEN, FINAL, TOKEN, COMMENT, DONE]),
        ([TOKEN, FINAL, USAGE, DONE], [TOKEN, FINAL, with_energy(USAGE), DONE]),
        ([TOKEN, USAGE, PING, DONE], [TOKEN, with_energy(USAGE), PING, DONE]),
        ([TOKEN, USAGE], [TOKEN, with_energy(USAGE)]),
        ([TOKEN, DONE], [TOKEN, COMMENT, DONE]),
        ([TOKEN], [TOKEN, COMMENT]),
        ([], [COMMENT]),
        ([DELTA, COMPLETED], [DELTA, COMMENT, COMPLETED]),
        ([DELTA, COMPLETED, DONE], [DELTA, COMMENT, COMPLETED, DONE]),
        ([TOKEN, STOP], [TOKEN, COMMENT, STOP]),
    ],
)
def test_energy_is_in_the_last_usage_or_before_the_end(stream: list[bytes], expected: list[bytes]) -> None:
    assert b"".join(edit(*stream)) == b"".join(expected)


def test_energy_comes_before_an_event_that_was_cut_off() -> None:
    assert edit(TOKEN, rest=b"data: {") == [TOKEN, COMMENT + b"data: {"]


def test_only_a_chunk_that_may_be_the_last_is_held() -> None:
    editor, reading = StreamEditor(energy=True, usage_is_ours=False), Reading()
    released = []
    for each in (TOKEN, PING, EACH, EARLY, ZERO, TOKEN, USAGE):
        editor.add(each, reading.read_event(each)[1])
        released.append(editor.drain())
    assert released == [TOKEN, PING, EACH, EARLY, b"", ZERO + TOKEN, b""]


def test_a_chunk_is_not_held_behind_comments_without_end() -> None:
    editor = StreamEditor(energy=True, usage_is_ours=False)
    editor.add(USAGE, Reading().read_event(USAGE)[1])
    for _ in range(100):
        editor.add(PING, 0)
    assert editor.drain().startswith(USAGE + PING)


def test_events_that_come_while_energy_is_awaited_follow_it() -> None:
    editor = StreamEditor(energy=True, usage_is_ours=False)
    for each in (DONE, PING):
        editor.add(each, Reading().read_event(each)[1])
    editor.end(b"")
    assert editor.drain() == b""
    editor.put_energy(ENERGY)
    assert editor.drain() == COMMENT + DONE + PING


@pytest.mark.parametrize("energy", [False, True])
@pytest.mark.parametrize("choices", [{"choices": []}, {"choices": None}, {}])
def test_a_chunk_of_usage_that_the_client_did_not_ask_for_is_left_out(
    choices: dict[str, None], energy: bool
) -> None:
    usage = event({"id": "x", "usage": {"prompt_tokens": 3}, **choices})
    comment = COMMENT if energy else b""
    assert b"".join(edit(TOKEN, usage, DONE, energy=energy, ours=True)) == TOKEN + comment + DONE


@pytest.mark.parametrize("chunk", [EACH, FINAL])
def test_usage_beside_content_is_taken_out_and_the_content_stays(chunk: bytes) -> None:
    out = edit(chunk, DONE, energy=False, ours=True)
    assert out == [chunk.replace(b',"usage":{"prompt_tokens":3}', b""), DONE]


@pytest.mark.parametrize(
    ("chunk", "expected"),
    [
        (b'data: {"usage" : {"a":"}"} , "id":"\\"usage\\":{"}\n\n', b'data: {"id":"\\"usage\\":{"}\n\n'),
        (b'data: {"id":1, "usage":{}}\n\n', b'data: {"id":1}\n\n'),
        (b'event: x\r\ndata: {"usage":{}}\r\n\r\n', b"event: x\ndata: {}\n\n"),
        (b'data: {"id":1,\ndata: "usage":{}}\n\n', b'data: {"id":1}\n\n'),
        (b'data: {"id":1}\n\n', b'data: {"id":1}\n\n'),
    ],
)
def test_usage_is_taken_out_where_it_stands(chunk: bytes, expected: bytes) -> None:
    assert without_usage(chunk) == expected


@pytest.mark.parametrize(
    ("chunk", "expected"),
    [
        (
            b'data: {"id":"\\"usage\\":{","usage" : {"a":1}}\n\n',
            b'data: {"id":"\\"usage\\":{","usage" : {"energy":7,"a":1}}\n\n',
        ),
        (b'data: {"usage":{ }}\n\n', b'data: {"usage":{"energy":7 }}\n\n'),
        (b'data: {"usage":null}\n\n', b'data: {"usage":null}\n\n'),
        (b'id: 1\ndata: {"usage":\ndata: {}}\n\n', b'id: 1\ndata: {"usage":\ndata: {"energy":7}}\n\n'),
    ],
)
def test_energy_is_put_into_usage_where_it_stands(chunk: bytes, expected: bytes) -> None:
    assert with_usage_energy(chunk, b"7") == expected


def chunk(**members: object) -> bytes:
    return event({"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", **members})


CHOICES = [{"index": 0, "delta": {"content": "a"}, "finish_reason": None}]


@pytest.mark.parametrize("usage", [None, [], {}, "", 0, "none"])
@pytest.mark.parametrize("energy", [False, True])
def test_a_placeholder_of_usage_that_only_we_requested_is_removed(usage: object, energy: bool) -> None:
    stream = [chunk(choices=CHOICES, usage=usage), chunk(usage=usage, choices=[]), chunk(usage=usage), DONE]
    expected = [chunk(choices=CHOICES), DONE] if not energy else [chunk(choices=CHOICES), COMMENT, DONE]
    assert b"".join(edit(*stream, ours=True, energy=energy)) == b"".join(expected)
    assert edit(*stream, energy=False) == stream, "a client that requested usage gets what the server sends"


@pytest.mark.parametrize(
    "kept",
    [
        # SGLang, whose chunks have all fields that are not set, with and without a request for usage
        chunk(choices=[{"delta": {"content": "a", "tool_calls": None}, "matched_stop": None}], usage=None),
        chunk(choices=[{"text": "a", "finish_reason": None, "matched_stop": None}], usage=None),
        event({"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": None}),
        chunk(choices=[{"delta": {"content": "usage"}}]),
        chunk(choices=[{"delta": {"content": '"usage": null'}, "usage": None}]),
    ],
)
def test_what_a_client_gets_without_us_is_kept(kept: bytes) -> None:
    assert edit(kept, DONE, ours=True, energy=False) == [kept, DONE]


def test_a_chunk_without_choices_that_has_more_than_usage_loses_its_usage_alone() -> None:
    first = chunk(choices=[], usage=None, prompt_filter_results=[])
    expected = [chunk(choices=[], prompt_filter_results=[]), DONE]
    assert edit(first, DONE, ours=True, energy=False) == expected
