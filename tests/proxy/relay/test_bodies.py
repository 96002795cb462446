"""What is read of JSON bodies."""

import pytest

from proxy.relay.bodies import answered, asked
from proxy.relay.fields import AnswerBody, Asked

DEEP = b'{"extra":' + b"[" * 5000 + b"]" * 5000 + b"}"


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b'{"model":3}', b'{"model":"\xc3"}', b'{"model":"\xff"}', DEEP]
)
def test_what_is_no_request_is_left_to_the_backend(body: bytes) -> None:
    assert asked(body) == Asked()


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b'{"choices":3}', b'{"model":"\xff"}', DEEP])
def test_what_is_no_answer_says_nothing(data: bytes) -> None:
    assert answered(data) is None


def test_fields_that_nobody_knows_are_passed_over() -> None:
    assert answered(b'{"id":"r1","new":{"usage":1}}') == AnswerBody(id="r1")
