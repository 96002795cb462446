import pytest

from loadgen.client.responses import NonStreamedResponse, StreamedResponse

ROLE = b'data: {"choices":[{"delta":{"role":"assistant","content":""}}]}\n\n'
WORD = b'data: {"choices":[{"delta":{"content":"a"}}]}\n\n'
STOP = b'data: {"choices":[{"delta":{},"finish_reason":"stop"}]}\n\n'
USAGE = b'data: {"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":2}}\n\n'
DONE = b"data: [DONE]\n\n"


def test_role_is_not_a_token_and_one_read_is_one_stamp() -> None:
    answer = StreamedResponse()
    answer.feed(ROLE, 1)
    answer.feed(WORD + WORD, 2)
    answer.feed(b": energy {}\n\n" + WORD + STOP + USAGE + DONE, 5)
    assert (answer.first_ns, answer.outputs_ns, answer.counts) == (2, [2, 5], [2, 1])
    assert answer.outcome() is None
    assert (answer.usage.prompt, answer.usage.output, answer.unread) == (3, 2, [])


def test_byte_by_byte_is_the_same() -> None:
    answer = StreamedResponse()
    for t, byte in enumerate(ROLE + WORD + STOP + USAGE + DONE):
        answer.feed(bytes([byte]), t)
    assert answer.counts == [1]
    assert answer.outcome() is None


@pytest.mark.parametrize(
    "delta",
    [
        '{"delta":{"reasoning_content":"x"}}',
        '{"delta":{"reasoning":"x"}}',
        '{"delta":{"tool_calls":[{"index":0}]}}',
        '{"text":"x"}',
        '{"text":""}',
        '{"delta":{"refusal":"no"}}',
        '{"delta":{"content":[{"type":"text","text":"x"}]}}',
    ],
)
def test_chunks_with_a_token(delta: str) -> None:
    answer = StreamedResponse()
    answer.feed(f'data: {{"choices":[{delta}]}}\r\n\r\n'.encode(), 9)
    assert answer.first_ns == 9


@pytest.mark.parametrize("delta", ["{}", '{"delta":{"tool_calls":[]}}', '{"delta":null}', '{"text":null}'])
def test_chunks_without_a_token(delta: str) -> None:
    answer = StreamedResponse()
    answer.feed(f'data: {{"choices":[{delta}]}}\n\n'.encode(), 9)
    assert answer.first_ns is None


def test_a_truncated_stream_an_error_event_and_malformed_data_are_failures() -> None:
    cut, told, malformed = StreamedResponse(), StreamedResponse(), StreamedResponse()
    cut.feed(ROLE + WORD, 1)
    told.feed(WORD + b'data: {"error":{"message":"no\\n more"}}\n\n' + DONE, 1)
    malformed.feed(b"data: {nope\n\n" + DONE, 1)
    assert "without a finish reason" in str(cut.outcome())
    assert told.outcome() == "the server reported an error with status 200: no more"
    assert malformed.outcome() == "malformed chunk: not a JSON object"


PLAIN = [ROLE, WORD, WORD, STOP, USAGE, DONE]
ODD = {
    "choices null": [b'data: {"choices":null,"usage":{"prompt_tokens":3,"completion_tokens":2}}\n\n'],
    "null": [b"data: null\n\n"],
    "empty": [b"data:\n\n", b"data: \n\n"],
    "a keep-alive that is no JSON": [b"data: ping\n\n"],
    "a comment and other fields": [b": PROCESSING\n\n", b"event: x\nid: 7\nretry: 5\n\n"],
    "an array": [b"data: [1,2]\n\n"],
    "an odd choice": [b'data: {"choices":[null,7,{"delta":"x"}]}\n\n'],
    "NaN beside it": [b'data: {"choices":[],"seconds":NaN}\n\n'],
    "an error that is null": [b'data: {"choices":[],"error":null}\n\n'],
}


@pytest.mark.parametrize("odd", ODD.values(), ids=ODD)
@pytest.mark.parametrize("at", [0, 2, 5])
def test_a_malformed_event_does_not_invalidate_the_stream(odd: list[bytes], at: int) -> None:
    answer = StreamedResponse()
    answer.feed(b"".join([*PLAIN[:at], *odd, *PLAIN[at:]]), 7)
    assert answer.outcome() is None
    assert (answer.counts, answer.usage.prompt, answer.usage.output) == ([2], 3, 2)


ALIKE = {
    "content in parts": [
        (WORD, b'data: {"choices":[{"delta":{"content":[{"type":"text","text":"a"}]}}]}\n\n')
    ],
    "half an emoji": [(WORD, rb'data: {"choices":[{"delta":{"content":"\ud83d"}}]}' + b"\n\n")],
    "no UTF-8": [(WORD, b'data: {"choices":[{"delta":{"content":"\xff"}}]}\n\n')],
    "counts with a fraction": [(b":3,", b":3.0,"), (b":2}", b':"2"}')],
    "finish reason a number": [(b'"stop"', b"1")],
    "no space after the colon": [(b"data: ", b"data:")],
    "two data lines": [(b'{"choices":', b'{"choices":\ndata: ')],
    "CR": [(b"\n", b"\r")],
    "CRLF": [(b"\n", b"\r\n")],
    "one line end": [(b"\n\n", b"\n")],
    "no end of the last event": [(DONE, b"data: [DONE]")],
    "one end of the last event": [(DONE, b"data: [DONE]\r\n")],
    "a byte order mark": [(ROLE, b"\xef\xbb\xbf" + ROLE)],
    "spaces around the end": [(b"[DONE]", b" [DONE] ")],
}


@pytest.mark.parametrize("changes", ALIKE.values(), ids=ALIKE)
@pytest.mark.parametrize("size", [1, 5, 10_000])
def test_equivalent_streams_are_measured_alike(changes: list[tuple[bytes, bytes]], size: int) -> None:
    stream = b"".join(PLAIN)
    for old, new in changes:
        assert old in stream
        stream = stream.replace(old, new)
    answer = StreamedResponse()
    for at in range(0, len(stream), size):
        answer.feed(stream[at : at + size], at)
    assert answer.outcome() is None
    assert (sum(answer.counts), answer.usage.prompt, answer.usage.output) == (2, 3, 2)


def test_fields_that_cannot_be_decoded_are_named() -> None:
    answer = StreamedResponse()
    answer.feed(
        WORD + b'data: {"choices":[],"usage":{"completion_tokens":"many","prompt_tokens":3}}\n\n' + DONE, 1
    )
    assert answer.outcome() is None
    assert (answer.usage.prompt, answer.usage.output) == (3, None)
    assert answer.unread == ["usage.completion_tokens"]


@pytest.mark.parametrize(
    "error",
    [b'{"error":"no"}', b'{"error":{"detail":1}}', b'{"object":"error","message":"no","code":400}'],
)
def test_errors_of_all_formats_are_failures(error: bytes) -> None:
    stream, whole = StreamedResponse(), NonStreamedResponse()
    stream.feed(WORD + STOP + b"data: " + error + b"\n\n" + DONE, 1)
    whole.feed(error, 1)
    for answer in (stream, whole):
        assert "the server reported an error with status 200" in str(answer.outcome())


def test_non_streamed_responses() -> None:
    good, bad, told = NonStreamedResponse(), NonStreamedResponse(), NonStreamedResponse()
    good.feed(b'{"data":[{"b64_json":"x"}],', 1)
    good.feed(b'"usage":{"prompt_tokens":4}}', 2)
    bad.feed(b"<html>", 1)
    told.feed(b'{"error":{"message":"no"}}', 1)
    assert good.outcome() is None
    assert (good.items, good.usage.prompt, good.usage.output) == (1, 4, None)
    assert bad.outcome() == "malformed response: not a JSON object"
    assert "error" in str(told.outcome())


@pytest.mark.parametrize("count", ["1180591620717411303424", "-1", "7.5", "NaN", "true", "[]"])
def test_a_count_that_can_be_none_is_unknown(count: str) -> None:
    answer = NonStreamedResponse()
    answer.feed(f'\ufeff{{"usage":{{"prompt_tokens":5.0,"completion_tokens":{count}}}}}'.encode(), 1)
    assert answer.outcome() is None
    assert (answer.usage.prompt, answer.usage.output) == (5, None)
