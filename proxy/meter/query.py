"""What the admin port's handlers share: parameters that name themselves when wrong, answers in one shape."""

import msgspec
from aiohttp import web


def json_answer(value: object) -> web.Response:
    """200 with a JSON body."""
    return web.Response(body=msgspec.json.encode(value), content_type="application/json")


def error_answer(status: int, message: str, code: str | None, param: str | None = None) -> web.Response:
    """An error in OpenAI's shape."""
    kind = "server_error" if status >= 500 else "invalid_request_error"
    error = {"message": message, "type": kind, "param": param, "code": code}
    return web.Response(
        status=status, body=msgspec.json.encode({"error": error}), content_type="application/json"
    )


class ParameterError(ValueError):
    """A parameter cannot be used: 400 that names it."""

    def __init__(self, param: str, message: str) -> None:
        super().__init__(f"{param}: {message}")
        self.param = param

    def answer(self) -> web.Response:
        """What the client is told."""
        return error_answer(400, str(self), "bad_parameter", self.param)


def number(request: web.Request, name: str, default: float | None, low: float, high: float) -> float:
    """A parameter within [low, high]; whole numbers stay exact. ``default`` None: it is needed."""
    text = request.query.get(name)
    if text is None:
        if default is None:
            raise ParameterError(name, "is needed")
        return default
    try:
        value = int(text) if text.lstrip("-").isdecimal() else float(text)
    except ValueError:
        raise ParameterError(name, f"must be a number, not {text!r}") from None
    if not low <= value <= high:
        raise ParameterError(name, f"must be within {low:g} and {high:g}, not {text}")
    return value
