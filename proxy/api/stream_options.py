# Compiled by mypyc: see setup.py.
"""Ask for the token counts of a stream in the client's stead (``stream_options.include_usage``)."""

from typing import Final

from proxy.api.edit import add_first, members_but, replace_member
from proxy.api.fields import STREAM_OPTIONS

NAME: Final = "stream_options"
_NAMES: Final[tuple[bytes, ...]] = (b"stream_options", b"include_usage")
_ASKED: Final = b'{"include_usage":true}'

# include_usage is set by us. continuous_usage_stats (vLLM, SGLang) puts usage into every chunk, but only
# together with include_usage: a client that did not set that does not expect it.
_OURS: Final = frozenset(("include_usage", "continuous_usage_stats"))


def asks_for_usage(options: bytes) -> bool:
    """Return whether the client's own ``stream_options``, given as their text, ask for usage."""
    read = STREAM_OPTIONS.decode(options, []) if options else None
    return read is not None and read.include_usage is True


def with_usage(body: bytes, options: bytes) -> bytes | None:
    """Return the body that asks for usage, each key once and every other byte as it was.

    ``options`` is the text of the client's ``stream_options``, empty or ``null`` where there are none: other
    options in it are kept. None where the body cannot be changed: it is no object, or the options are not an
    object, which the backend judges.
    """
    if not options and body.find(_NAMES[0]) < 0:  # the usual case
        return add_first(body, b'"stream_options":%b' % _ASKED)
    if options.strip() in {b"", b"null"}:
        return replace_member(body, NAME, _ASKED)
    if not options.startswith(b"{"):
        return None
    others = members_but(options, _OURS)
    return replace_member(body, NAME, b"{%b}" % b",".join((b'"include_usage":true', *others)))


def refused(body: bytes) -> bool:
    """Return whether an error names what :func:`with_usage` adds."""
    return any(name in body for name in _NAMES)
