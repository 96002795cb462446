"""The shape of errors."""

import msgspec

from proxy.api.errors import error_body


def test_an_error_has_the_shape_that_clients_parse() -> None:
    assert msgspec.json.decode(error_body("no", "backend_timeout")) == {
        "error": {"message": "no", "type": "proxy_error", "param": None, "code": "backend_timeout"}
    }
