# Compiled by mypyc: see setup.py.
"""Read text fields of a ``multipart/form-data`` body (RFC 7578).

Uploads of audio and images name their model in one.
"""

import re
from typing import Final

_BOUNDARY: Final = re.compile(rb'boundary=(?:"([^"]{1,70})"|([^\s;]{1,70}))', re.IGNORECASE)
_NAME: Final = re.compile(rb';\s*name=(?:"([^"\r\n]*)"|([^\s;"]+))', re.IGNORECASE)
_MAX_HEAD_BYTES: Final = 4096  # of a part
_MAX_VALUE_BYTES: Final = 1024


def form_fields(content_type: bytes, body: bytes, names: frozenset[str]) -> dict[str, str]:
    """Return the values of the named fields, as far as the body holds them and they are short.

    ``body`` may be cut off. Files are skipped by searching for the next boundary. Empty where there is no
    boundary.
    """
    given = _BOUNDARY.search(content_type)
    if given is None:
        return {}
    delimiter = b"--" + (given[1] or given[2])
    found: dict[str, str] = {}
    at = body.find(delimiter)
    while at >= 0 and len(found) < len(names):
        at += len(delimiter)
        head_end = body.find(b"\r\n\r\n", at, at + _MAX_HEAD_BYTES)
        if head_end < 0:
            break
        end = body.find(b"\r\n" + delimiter, head_end + 2)  # + 2: an empty value
        name = _name(body[at:head_end])
        if name in names and 0 <= end - head_end - 4 <= _MAX_VALUE_BYTES:
            found[name] = body[head_end + 4 : end].decode("utf-8", "replace")
        at = end + 2 if end >= 0 else -1
    return found


def _name(head: bytes) -> str:
    for line in head.split(b"\r\n"):
        if line.lower().startswith(b"content-disposition:"):
            given = _NAME.search(line)
            if given is not None:
                return (given[1] if given[1] is not None else given[2]).decode("utf-8", "replace")
    return ""
