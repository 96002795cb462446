"""Text fields of forms are found beside files of any content."""

import pytest

from proxy.api.forms import form_fields

NAMES = frozenset(("model", "stream"))
KIND = b"multipart/form-data; boundary=B-1"


def part(name: bytes, value: bytes, extra: bytes = b"") -> bytes:
    return b'--B-1\r\nContent-Disposition: form-data; name="%b"%b\r\n\r\n%b\r\n' % (name, extra, value)


FILE = part(
    b"file", b'\r\n--B-2\r\nname="model"\r\n\r\nx' * 9, b'; filename="model"\r\nContent-Type: audio/wav'
)


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        (part(b"model", b"b") + FILE + b"--B-1--\r\n", {"model": "b"}),
        (FILE + part(b"stream", b"1") + part(b"model", b"b") + b"--B-1--", {"model": "b", "stream": "1"}),
        (b"preamble\r\n" + part(b"model", b"") + b"--B-1--", {"model": ""}),
        (part(b"model", b"b") + FILE[:200], {"model": "b"}),
        (part(b"model", b"x" * 5000) + b"--B-1--", {}),
        (part(b"model", b"b"), {}),
        (FILE, {}),
        (b"--B-1\r\nname=model", {}),
        (b"", {}),
    ],
)  # fmt: skip
def test_fields_are_read(body: bytes, fields: dict[str, str]) -> None:
    assert form_fields(KIND, body, NAMES) == fields


def test_names_and_boundaries_may_be_quoted_or_not() -> None:
    body = b"--B-1\r\ncontent-disposition: form-data; filename=x; name=model\r\n\r\nb\r\n--B-1--"
    assert form_fields(b'multipart/form-data; charset=utf-8; BOUNDARY="B-1"', body, NAMES) == {"model": "b"}
    assert form_fields(b"multipart/form-data", body, NAMES) == {}
