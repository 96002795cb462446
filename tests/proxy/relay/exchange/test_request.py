"""What a request asks for, however its body comes."""

import gzip
import zlib
from collections.abc import Callable

import pytest

from proxy.relay.exchange import request as module
from proxy.relay.exchange.request import Request
from proxy.relay.http.heads import parse_request
from proxy.relay.http.trace_context import Ids
from proxy.zstd import compress


def request(
    lines: bytes, *pieces: bytes, path: bytes = b"/v1/chat/completions", limit: int = 1000
) -> Request:
    """A request with these header lines, whose body came in pieces."""
    head = parse_request(b"POST %b HTTP/1.1\r\nHost: h\r\n%b\r\n" % (path, lines), 1 << 30)
    made = Request(head, Ids(), limit)
    for piece in pieces:
        made.body.add(piece)
    made.body.ended = True
    return made


JSON = b"Content-Type: application/json\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n"


def test_a_chunked_body_is_read_and_sent_on_with_its_length() -> None:
    made = request(JSON + CHUNKED, b'5;x=y\r\n{"mod\r\n', b'8\r\nel":"b"}\r\n0\r\nTrailer: t\r\n\r\n')
    assert made.read() == b'{"model":"b"}'
    assert made.model == "b"
    assert made.body.pieces() == [b'{"model":"b"}']
    assert made.body.length == 13


def test_an_empty_chunked_body_has_no_model() -> None:
    made = request(JSON + CHUNKED, b"0\r\n\r\n")
    assert made.read() == b""
    assert made.model is None
    assert made.with_usage() is None


@pytest.mark.parametrize(
    ("kind", "reads"),
    [
        (b"", True),
        (JSON, True),
        (b"Content-Type: application/vnd.api+json; charset=utf-8\r\n", True),
        (b"Content-Type: text/plain\r\n", True),
        (b"Content-Type: application/x-www-form-urlencoded\r\n", True),
        (b"Content-Type: image/png\r\n", False),
        (b"Content-Type: audio/wav\r\n", False),
    ],
)
def test_bodies_that_may_be_json_are_read(kind: bytes, reads: bool) -> None:
    made = request(kind + b"Content-Length: 13\r\n", b'{"model":"b"}')
    assert (made.read() is not None) == reads
    assert made.model == ("b" if reads else None)


def test_a_path_that_is_not_known_is_not_read() -> None:
    assert request(JSON + b"Content-Length: 2\r\n", b"{}", path=b"/v1/files?model=x").read() is None


def test_utf_16_is_read() -> None:
    body = '{"model":"b","stream":true}'.encode("utf-16")
    made = request(JSON + b"Content-Length: %d\r\n" % len(body), body)
    made.read()
    assert made.model == "b"
    assert made.with_usage() == b'{"stream_options":{"include_usage":true},"model":"b","stream":true}'


@pytest.mark.parametrize(
    ("body", "limit"),
    [
        (b'{"max_tokens":16.0}', 16),
        (b'{"max_tokens":"16","x":NaN}', 16),
        (b'{"max_output_tokens":7}', 7),
        (b'{"n_predict":-1}', None),
        (b'{"max_tokens":1e400}', None),
    ],
)
def test_the_limit_of_the_output(body: bytes, limit: int | None) -> None:
    made = request(JSON + b"Content-Length: %d\r\n" % len(body), body)
    made.read()
    assert made.output_limit == limit


@pytest.mark.parametrize("stream", [b"true", b"1", b'"true"', b'"True"', b"1.0", b'"yes"', b'"on"'])
def test_a_stream_is_asked_for_usage_however_it_says_so(stream: bytes) -> None:
    body = b'{"stream":%b}' % stream
    made = request(JSON + b"Content-Length: %d\r\n" % len(body), body)
    made.read()
    assert made.with_usage() == b'{"stream_options":{"include_usage":true},"stream":%b}' % stream


@pytest.mark.parametrize("stream", [b"false", b"0", b'"false"', b"null", b'"off"', b"[]", b"2"])
def test_what_is_no_stream_is_not_asked(stream: bytes) -> None:
    body = b'{"stream":%b}' % stream
    made = request(JSON + b"Content-Length: %d\r\n" % len(body), body)
    made.read()
    assert made.with_usage() is None


def test_the_model_of_a_form_is_read_and_its_bytes_stay() -> None:
    form = b'--x\r\nContent-Disposition: form-data; name="model"\r\n\r\nb\r\n--x--\r\n'
    lines = b"Content-Type: multipart/form-data; boundary=x\r\n"
    for framing, sent in (
        (b"Content-Length: 61\r\n", form),
        (CHUNKED, b"%x\r\n%b\r\n0\r\n\r\n" % (len(form), form)),
    ):
        made = request(lines + framing, sent, path=b"/v1/audio/transcriptions")
        assert made.read() == form
        assert made.model == "b"
        assert made.body.joined() == form
        assert made.with_usage() is None


@pytest.mark.parametrize("framing", [b"Content-Length: 100\r\n", CHUNKED])
def test_the_beginning_of_a_body_that_is_too_large_is_read(framing: bytes) -> None:
    body = b'{"model":"b","stream":true,"x":"%b' % (b"x" * 50)
    sent = body if framing != CHUNKED else b"%x\r\n%b" % (len(body) + 9, body)
    made = request(JSON + framing, sent, limit=30)
    assert made.read() is None
    assert made.model == "b"
    assert made.with_usage() is None, "its bytes pass as they come"
    assert made.body.joined() == sent


@pytest.mark.parametrize(
    ("body", "samples"),
    [
        (b'{"n":4}', 4),
        (b'{"n":"2","temperature":NaN}', 2),
        (b'{"n":2,"best_of":8}', 8),
        (b'{"n":1}', None),
        (b'{"n":null}', None),
        (b'{"n":-3}', None),
        (b"{}", None),
    ],
)
def test_the_number_of_answers_is_read(body: bytes, samples: int | None) -> None:
    made = request(JSON + b"Content-Length: %d\r\n" % len(body), body)
    made.read()
    assert made.samples == samples


STREAM = b'{"model":"b","stream":true,"n":3,"messages":[]}'


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize(
    ("coding", "make"), [(b"gzip", gzip.compress), (b"Deflate", zlib.compress), (b"zstd", compress)]
)
def test_a_compressed_body_is_read_and_sent_as_it_came(
    coding: bytes, make: Callable[[bytes], bytes], chunked: bool
) -> None:
    body = make(STREAM)
    framing = CHUNKED if chunked else b"Content-Length: %d\r\n" % len(body)
    sent = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body) if chunked else body
    made = request(JSON + framing + b"Content-Encoding: %b\r\n" % coding, sent)
    assert made.read() == STREAM
    assert (made.model, made.fields.stream, made.samples, made.unread) == ("b", True, 3, [])
    assert made.with_usage() is None, "its bytes cannot be changed"
    assert made.body.joined() == body


@pytest.mark.parametrize("coding", [b"br", b"gzip, gzip", b"gzip"])
def test_a_compressed_body_that_cannot_be_read_is_reported_and_sent_as_it_came(coding: bytes) -> None:
    lines = JSON + b"Content-Length: 4\r\nContent-Encoding: %b\r\n" % coding
    made = request(lines, b"\x8b\x01\x80x")
    assert made.read() is None
    assert made.model is None
    assert "body" in made.unread
    assert made.body.joined() == b"\x8b\x01\x80x"


@pytest.mark.parametrize("make", [gzip.compress, compress])
def test_the_beginning_of_a_body_that_grows_too_large_is_read(
    make: Callable[[bytes], bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_MAX_DECOMPRESSED_BYTES", 100_000)
    body = make(b'{"model":"b","messages":"%b"}' % (b"x" * (1 << 22)))
    coding = b"gzip" if make is gzip.compress else b"zstd"
    lines = JSON + b"Content-Length: %d\r\nContent-Encoding: %b\r\n" % (len(body), coding)
    made = request(lines, body, limit=1 << 20)
    assert made.read() is None
    assert (made.model, made.body.joined()) == ("b", body)


def test_a_damaged_body_is_read_up_to_the_damage() -> None:
    body = gzip.compress(STREAM)[:-8]  # its checksum is missing
    lines = JSON + b"Content-Length: %d\r\nContent-Encoding: gzip\r\n" % len(body)
    made = request(lines, body)
    assert made.read() is None
    assert (made.model, made.unread) == ("b", ["body"])


def test_the_prompt_is_its_parts_as_they_stand_in_the_body() -> None:
    body = b'{"messages": [{"content": "hi"}], "model": "m", "tools": [{"a": 1}]}'
    made = request(JSON + b"Content-Length: %d\r\n" % len(body), body)
    made.read()
    assert made.prompt() == b'[{"a": 1}][{"content": "hi"}]'


@pytest.mark.parametrize(
    "messages",
    [
        b'[{"content": [{"image_url": {"url": "data:image/png;base64,AAAA"}}]}]',
        b'[{"content": [{"type": "image", "source": {"type": "base64", "data": "AAAA"}}]}]',
    ],
)
def test_a_prompt_with_embedded_images_has_no_length(messages: bytes) -> None:
    body = b'{"messages": %b}' % messages
    made = request(JSON + b"Content-Length: %d\r\n" % len(body), body)
    made.read()
    assert made.prompt() is None


def test_a_body_without_a_prompt_has_none() -> None:
    made = request(JSON + b"Content-Length: 13\r\n", b'{"model":"b"}')
    made.read()
    assert made.prompt() is None
