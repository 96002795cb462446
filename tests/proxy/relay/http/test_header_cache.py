import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from proxy.relay.http.framing import Chunked, Fixed
from proxy.relay.http.header_cache import RequestHeadCache, ResponseHeadCache
from proxy.relay.http.heads import HeadError, RequestHead, ResponseHead, parse_request, parse_response

POST = b"POST /v1/x HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nA: b\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-type: application/json\r\n\r\n"
LIMIT = 1000

# Lines of heads, good and bad, that differ in what the short way looks at.
LINES = st.sampled_from(
    [
        b"Host: h", b"A: b", b"Content-Length: 5", b"content-length: 17", b"Content-Length: 0",
        b"Content-Length: ", b"Content-Length: 5 ", b"Content-Length:5", b"CONTENT-LENGTH: 5",
        b"Content-Length: 99999", b"Content-Length: -1", b"Content-Length: 007",
        b"Transfer-Encoding: chunked", b"Connection: close", b"X: Content-Length: 5", b" folded",
    ]
)  # fmt: skip
REQUESTS = st.builds(
    lambda first, lines: b"\r\n".join((first, *lines, b"", b"")),
    st.sampled_from([b"POST / HTTP/1.1", b"GET / HTTP/1.1", b"POST / HTTP/1.0", b"POST / HTTP/2.0"]),
    st.lists(LINES, max_size=4).map(lambda lines: [b"Host: h", *lines]),
)
ANSWERS = st.builds(
    lambda first, lines: b"\r\n".join((first, *lines, b"", b"")),
    st.sampled_from([b"HTTP/1.1 200 OK", b"HTTP/1.1 204 No Content", b"HTTP/1.0 200 OK", b"HTTP/1.1 500 E"]),
    st.lists(LINES, max_size=4),
)


def plain(head: RequestHead | ResponseHead) -> tuple[object, ...]:
    """All fields; the body by its kind and what is left of it."""
    names = ["headers", "values", "keep_alive"]
    names += (
        ["method", "target", "http11", "length", "upgrade"]
        if isinstance(head, RequestHead)
        else ["status", "reason"]
    )
    body = head.body
    left = body._left if isinstance(body, Fixed | Chunked) else None
    return (*(getattr(head, name) for name in names), type(body), left)


def request(parse: object, raw: bytes) -> object:
    assert callable(parse)
    try:
        return plain(parse(raw, LIMIT))
    except HeadError as error:
        return error.status


def answer(parse: object, raw: bytes, method: bytes) -> object:
    assert callable(parse)
    try:
        return plain(parse(raw, method))
    except HeadError as error:
        return error.status


@example([POST.replace(b": 5", b":5")] * 2)  # a length that is written otherwise is a length all the same
@settings(max_examples=200)
@given(st.lists(REQUESTS, min_size=2, max_size=6))
def test_requests_are_read_as_if_each_were_the_first(heads: list[bytes]) -> None:
    again = RequestHeadCache()
    for raw in (one for head in heads for one in (head, head)):
        assert request(again.parse, raw) == request(parse_request, raw)


@example([(OK.replace(b": 5", b":5"), b"POST")] * 2)
@settings(max_examples=200)
@given(st.lists(st.tuples(ANSWERS, st.sampled_from([b"GET", b"HEAD", b"POST"])), min_size=2, max_size=6))
def test_answers_are_read_as_if_each_were_the_first(heads: list[tuple[bytes, bytes]]) -> None:
    again = ResponseHeadCache()
    for raw, method in (one for head in heads for one in (head, head)):
        assert answer(again.parse, raw, method) == answer(parse_response, raw, method)


@pytest.mark.parametrize(
    "digits", [b"5", b"0", b"17", b"0017", b"999", b"1001", b"9" * 16, b"", b"x", b"5, 5"]
)
def test_only_the_length_of_a_repeated_head_changes(digits: bytes) -> None:
    requests, answers = RequestHeadCache(), ResponseHeadCache()
    requests.parse(POST, LIMIT)
    answers.parse(OK, b"POST")
    other, reply = (raw.replace(b"ength: 5", b"ength: " + digits) for raw in (POST, OK))
    assert request(requests.parse, other) == request(parse_request, other)
    assert answer(answers.parse, reply, b"POST") == answer(parse_response, reply, b"POST")


def test_a_repeated_head_is_not_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    requests = RequestHeadCache()
    first = requests.parse(POST, LIMIT)
    monkeypatch.setattr("proxy.relay.http.header_cache.parse_request", None)
    second = requests.parse(POST.replace(b": 5", b": 6"), LIMIT)
    assert (first.length, second.length) == (5, 6)
    assert first.values[b"content-length"] == b"5"
    assert second.values[b"content-length"] == b"6"
    assert (b"Content-Length", b"6") in second.headers
