import msgspec
import pytest
from aiohttp.test_utils import make_mocked_request

from proxy.meter.query import ParameterError, error_response, json_response, number


def value(text: str | None, default: float | None = None, low: float = 0, high: float = 2.0**63) -> float:
    """Return the parameter ``n`` of a request."""
    query = "" if text is None else f"?n={text}"
    return number(make_mocked_request("GET", f"/energy/requests{query}"), "n", default, low, high)


def test_an_integer_stays_exact() -> None:
    assert value(str(2**53 + 1)) == 2**53 + 1
    assert isinstance(value("12"), int)
    assert value("1.5") == 1.5


def test_a_missing_parameter_has_its_default_or_is_an_error() -> None:
    assert value(None, default=7) == 7
    with pytest.raises(ParameterError, match="n: is required"):
        value(None)


@pytest.mark.parametrize("text", ["x", "", "nan", "1,5", "0x10"])
def test_a_parameter_that_is_not_a_number_is_named(text: str) -> None:
    with pytest.raises(ParameterError, match="n: must be"):
        value(text)


def test_a_parameter_out_of_range_names_the_limits() -> None:
    with pytest.raises(ParameterError, match="n: must be between 0 and 60, not 61"):
        value("61", high=60)
    with pytest.raises(ParameterError, match="n: must be between 0 and 60, not -1"):
        value("-1", high=60)


def test_an_error_has_the_format_of_openais_api() -> None:
    response = ParameterError("n", "is required").response()
    assert response.status == 400
    assert isinstance(response.body, bytes)
    assert msgspec.json.decode(response.body) == {
        "error": {
            "message": "n: is required",
            "type": "invalid_request_error",
            "param": "n",
            "code": "bad_parameter",
        }
    }
    failed = error_response(503, "not ready", "not_ready")
    assert isinstance(failed.body, bytes)
    assert msgspec.json.decode(failed.body)["error"]["type"] == "server_error"


def test_a_response_is_json() -> None:
    response = json_response({"a": None})
    assert (response.status, response.content_type, response.body) == (200, "application/json", b'{"a":null}')
