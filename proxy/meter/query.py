"""Query parameters and JSON responses, shared by the handlers of the admin port."""

import msgspec
from aiohttp import web


def json_response(value: object) -> web.Response:
    """Return a response with status 200 and ``value`` as JSON."""
    return web.Response(body=msgspec.json.encode(value), content_type="application/json")


def error_response(status: int, message: str, code: str | None, param: str | None = None) -> web.Response:
    """Return an error response in the format of OpenAI's API."""
    kind = "server_error" if status >= 500 else "invalid_request_error"
    error = {"message": message, "type": kind, "param": param, "code": code}
    return web.Response(
        status=status, body=msgspec.json.encode({"error": error}), content_type="application/json"
    )


class ParameterError(ValueError):
    """A missing or invalid query parameter; becomes a response with status 400 that names it."""

    def __init__(self, param: str, message: str) -> None:
        super().__init__(f"{param}: {message}")
        self.param = param

    def response(self) -> web.Response:
        """Return the response with status 400."""
        return error_response(400, str(self), "bad_parameter", self.param)


def number(request: web.Request, name: str, default: float | None, low: float, high: float) -> float:
    """Return a numeric query parameter; integers stay exact.

    Args:
        request: The request.
        name: Name of the parameter.
        default: Value if it is missing; None: it is required.
        low: Least allowed value.
        high: Largest allowed value.

    Raises:
        ParameterError: if it is missing and required, not a number or out of range.
    """
    text = request.query.get(name)
    if text is None:
        if default is None:
            raise ParameterError(name, "is required")
        return default
    try:
        value = int(text) if text.lstrip("-").isdecimal() else float(text)
    except ValueError:
        raise ParameterError(name, f"must be a number, not {text!r}") from None
    if not low <= value <= high:
        raise ParameterError(name, f"must be between {low:g} and {high:g}, not {text}")
    return value
