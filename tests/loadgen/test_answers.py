import pytest

from loadgen.answers import StreamAnswer, WholeAnswer

ROLE = b'data: {"choices":[{"delta":{"role":"assistant","content":""}}]}\n\n'
WORD = b'data: {"choices":[{"delta":{"content":"a"}}]}\n\n'
STOP = b'data: {"choices":[{"delta":{},"finish_reason":"stop"}]}\n\n'
USAGE = b'data: {"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":2}}\n\n'
DONE = b"data: [DONE]\n\n"


def test_role_is_not_a_token_and_one_read_is_one_stamp() -> None:
    answer = StreamAnswer()
    answer.feed(ROLE, 1)
    answer.feed(WORD + WORD, 2)
    answer.feed(b": energy {}\n\n" + WORD + STOP + USAGE + DONE, 5)
    assert (answer.first_ns, answer.outputs_ns, answer.counts) == (2, [2, 5], [2, 1])
    assert answer.outcome() is None
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 2


def test_byte_by_byte_is_the_same() -> None:
    answer = StreamAnswer()
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
    ],
)
def test_all_that_carries_a_token(delta: str) -> None:
    answer = StreamAnswer()
    answer.feed(f'data: {{"choices":[{delta}]}}\r\n\r\n'.encode(), 9)
    assert answer.first_ns == 9


@pytest.mark.parametrize("delta", ["{}", '{"delta":{"tool_calls":[]}}', '{"delta":null}', '{"text":""}'])
def test_what_carries_none(delta: str) -> None:
    answer = StreamAnswer()
    answer.feed(f'data: {{"choices":[{delta}]}}\n\n'.encode(), 9)
    assert answer.first_ns is None


def test_a_cut_stream_an_error_event_and_rubbish_are_failures() -> None:
    cut, told, rubbish = StreamAnswer(), StreamAnswer(), StreamAnswer()
    cut.feed(ROLE + WORD, 1)
    told.feed(b'data: {"error":{"message":"no"}}\n\n' + DONE, 1)
    rubbish.feed(b"data: {nope\n\n", 1)
    assert "without a finish reason" in str(cut.outcome())
    assert "error within the stream" in str(told.outcome())
    assert "not a chunk" in str(rubbish.outcome())


def test_whole_answers() -> None:
    good, bad, told = WholeAnswer(), WholeAnswer(), WholeAnswer()
    good.feed(b'{"data":[{"b64_json":"x"}],', 1)
    good.feed(b'"usage":{"prompt_tokens":4}}', 2)
    bad.feed(b"<html>", 1)
    told.feed(b'{"error":{"message":"no"}}', 1)
    assert good.outcome() is None
    assert good.items == 1
    assert "not an answer" in str(bad.outcome())
    beyond = WholeAnswer()
    beyond.feed(b'{"usage":{"completion_tokens":1180591620717411303424}}', 1)
    assert "$.usage.completion_tokens" in str(beyond.outcome()), "no record can hold it"
    assert "error" in str(told.outcome())
