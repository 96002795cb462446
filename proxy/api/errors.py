"""The shape of an error body, as OpenAI's API has it and its clients parse it."""

import msgspec


def error_body(message: str, code: str, kind: str = "proxy_error") -> bytes:
    """Return the JSON of an error: ``message`` is for people, ``code`` and ``kind`` for programs."""
    return msgspec.json.encode({"error": {"message": message, "type": kind, "param": None, "code": code}})
