"""The text of a response is captured beside its measurement."""

from loadgen.client.responses import NonStreamedResponse, StreamedResponse
from loadgen.client.text_capture import TextCapture


def test_a_stream_is_measured_as_without_capture_and_its_text_is_kept() -> None:
    events = (
        b'data: {"choices":[{"delta":{"role":"assistant","content":""}}]}\n\n',
        b'data: {"choices":[{"delta":{"reasoning_content":"hm, "}}]}\n\n',
        b'data: {"choices":[{"delta":{"content":"h\xc3\xa4"}}]}\n\n',
        b'data: {"choices":[{"text":" ho","finish_reason":"stop"}]}\n\n',
        b'data: {"choices":[],"usage":{"completion_tokens":3}}\n\ndata: [DONE]\n\n',
    )
    plain, spoken = StreamedResponse(), TextCapture(StreamedResponse())
    body = b"".join(events)
    for t_ns, at in enumerate(range(0, len(body), 7)):  # cut anywhere
        plain.feed(body[at : at + 7], t_ns)
        spoken.feed(body[at : at + 7], t_ns)
    assert spoken.text() == "hm, h\u00e4 ho"
    spoken.template(b"")
    assert (spoken.outcome(), plain.outcome()) == (None, None)
    for name in ("first_ns", "outputs_ns", "counts"):
        assert getattr(spoken, name) == getattr(plain, name)
    assert spoken.usage.output == plain.usage.output == 3


def test_a_non_streamed_response() -> None:
    spoken = TextCapture(NonStreamedResponse())
    spoken.feed(b'{"choices":[{"message":{"content":"ha ', 1)
    spoken.feed(b'ho"}}],"usage":{"completion_tokens":2}}', 2)
    assert spoken.outcome() is None
    assert spoken.text() == "ha ho"


def test_data_that_is_no_response_has_no_text() -> None:
    spoken = TextCapture(NonStreamedResponse())
    spoken.feed(b"<html>", 1)
    assert spoken.outcome() is not None
    assert spoken.text() == ""


def test_content_in_parts_and_half_an_emoji_are_text() -> None:
    spoken = TextCapture(StreamedResponse())
    spoken.feed(
        b'\xef\xbb\xbfdata: {"choices":[{"delta":{"content":[{"type":"text","text":"a"},null]}}]}\n\n', 1
    )
    spoken.feed(rb'data:{"choices":[{"delta":{"content":"\ud83d"}}]}' + b"\r\r", 2)
    spoken.feed(b'data: {"choices":\ndata: [{"delta":{"content":"b"}}]}\n\ndata: [DONE]', 3)
    assert spoken.text() == "a\ufffdb"
    assert spoken.outcome() is None
