"""Parsers of operator input, shared by the proxy and the load generator.

URLs, ``HOST:PORT`` addresses, header options, keys, durations, numbers and text files. Every function
receives the text as typed and returns a value, or raises :class:`InputError`, whose message states the
correct form; the caller prefixes the option, variable or ``file: key``. Pure: no name is resolved, no file is
opened.
"""

import ipaddress
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeVar
from urllib.parse import SplitResult, quote, urlsplit

T = TypeVar("T")
UNIX: Final = "unix:"
# Seconds: 31 years. Above it a nanosecond count would no longer fit into the 63 bits that timers take.
MAX_SECONDS: Final = 1e9
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}
_MAX_PORT: Final = 65535
_MAX_SOCKET_PATH: Final = 107  # bytes of sun_path, less its closing NUL: unix(7)
_MAX_HOST: Final = 253  # characters of a DNS name: RFC 1035
# An underscore is no host name by RFC 952, but Docker Compose and DNS itself use it.
_LABEL: Final = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?", re.IGNORECASE)
_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # a field name: RFC 9110, section 5.6.2
_DURATION: Final = re.compile(r"([0-9]+(?:\.[0-9]+)?|\.[0-9]+)(us|ms|s|m|h)")
_UNIT_SECONDS: Final = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
# Paths that clients and exporters add to a base URL: pasted along with it, they would be sent twice.
_ENDPOINT: Final = re.compile(
    r"/v1/(chat/completions|completions|responses|messages|embeddings|models|rerank|images/\w+|videos|traces|metrics|audio/\w+)$"
)
# Written by the sender of each request: a second one makes the request ambiguous or wrong.
_FRAMING: Final = ("connection", "content-length", "content-type", "host", "transfer-encoding")


class InputError(ValueError):
    """A text is invalid; the message is one line that states the correct form."""


@dataclass(frozen=True, slots=True)
class Origin:
    """The location of a server.

    Attributes:
        host: ASCII: a name (IDNA), an IPv4 address, or an IPv6 address without brackets.
        port: TCP port; 0 for a Unix socket.
        socket: Path of the Unix socket to connect to; None: connect to ``host`` and ``port``.
        tls: Whether TLS is used.
        prefix: Prefix of every path, without a final ``/v1``; begins with a slash or is empty.
        authority: Value of the ``Host`` header; without the port if it is the default of the scheme.
    """

    host: str
    port: int
    socket: str | None
    tls: bool
    prefix: str
    authority: str

    @property
    def server(self) -> tuple[str, int | None]:
        """``server.address`` and ``server.port`` of OpenTelemetry: a socket's path and no port."""
        return (self.host, self.port) if self.socket is None else (self.socket, None)

    @property
    def url(self) -> str:
        """The URL in its canonical form: lower case, no default port, no final slash or ``/v1``."""
        if self.socket is not None:
            return UNIX + self.socket
        return f"{'https' if self.tls else 'http'}://{self.authority}{self.prefix}"


def named(option: str, text: str, parse: Callable[[str], T]) -> T:
    """Return ``parse(text)``; an :class:`InputError` of it is raised again with the option in front.

    Keys, tokens, header values and passwords in URLs do not appear in the message.
    """
    try:
        return parse(text)
    except InputError as error:
        secret = parse in {parse_key, parse_header}
        raise InputError(
            f"{option}: {error}" if secret else f"{option} {shown_url(text)!r}: {error}"
        ) from error


def parse_url(text: str, *, unix: bool = False) -> Origin:
    """Parse the base URL of a server: ``http(s)://HOST[:PORT][/PREFIX][/v1]``.

    A final ``/v1`` is what clients of such servers call their base URL; paths begin with it anyway, so it is
    left out. ``unix`` also accepts ``unix:/PATH``. Raises :class:`InputError`, also for a user and password
    (logs, records and reports show URLs) and for a query or fragment (no request would carry them).
    """
    text = text.strip()
    if unix and text[: len(UNIX)].lower() == UNIX:
        return Origin("localhost", 0, _socket_path(text[len(UNIX) :]), False, "", "localhost")
    form = "http://HOST[:PORT], https://HOST[:PORT]" + (" or unix:/PATH" if unix else "")
    parts = _split(text, form)
    if parts.username is not None:
        raise InputError(
            "must be without user and password, which logs would show: send an Authorization header instead"
        )
    if "?" in text or "#" in text:
        raise InputError("must be without a query (?...) or fragment (#...): it is put before every path")
    tls = parts.scheme == "https"
    host = parse_host(parts.hostname or "", f"must be {form}")
    bare = host.partition("%")[0]  # a zone id is only meaningful on this host: RFC 6874
    authority = f"[{bare}]" if ":" in bare else bare
    default = _DEFAULT_PORTS[parts.scheme]
    port = parts.port or default
    path = quote(parts.path, safe="/%:@!$&'()*+,;=~").rstrip("/")
    if found := _ENDPOINT.search(path):
        raise InputError(f"must be the base URL, without {found[0]}")
    prefix = path.removesuffix("/v1").rstrip("/")
    return Origin(host, port, None, tls, prefix, authority if port == default else f"{authority}:{port}")


def parse_page(text: str) -> str:
    """Return the URL of one page, with any user, path and query; raises :class:`InputError`."""
    form = "http://HOST[:PORT]/PATH or https://HOST[:PORT]/PATH"
    parts = _split(text.strip(), form)
    parse_host(parts.hostname or "", f"must be {form}")
    return text.strip()


def shown_url(text: str) -> str:
    """Return a URL for a message, with user and password replaced by ``***``."""
    return re.sub(r"//[^/?#]*@", "//***@", text)


def _split(text: str, form: str) -> SplitResult:
    """Split an http(s) URL after checking its characters, scheme and port."""
    if any(character.isspace() or not character.isprintable() or character == "\\" for character in text):
        raise InputError(f"must be {form}, without spaces, backslashes or control characters")
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError as error:
        raise InputError(f"must be {form} ({error})") from error
    if parts.scheme not in _DEFAULT_PORTS or not parts.hostname:
        bare = text and "//" not in text and not text.lower().startswith(("http:", "https:"))
        hint = f": is http://{text} meant?" if bare else ""
        raise InputError(f"must be {form}{hint}")
    if port == 0:
        raise InputError(f"must be {form}: a port is from 1 to {_MAX_PORT}")
    return parts


def _socket_path(path: str) -> str:
    """Return the absolute path of a Unix socket; ``unix:///PATH`` is equivalent to ``unix:/PATH``."""
    if path.startswith("///"):
        path = path[2:]
    if not path.startswith("/") or path.startswith("//") or path == "/":
        raise InputError("must be unix:/PATH, the absolute path of a socket")
    if not path.isprintable():
        raise InputError("must be unix:/PATH, without control characters")
    if len(path.encode()) > _MAX_SOCKET_PATH:
        raise InputError(f"must be unix:/PATH of at most {_MAX_SOCKET_PATH} bytes, the limit of the kernel")
    return path


def parse_host(text: str, otherwise: str = "must be a host name or an IP address") -> str:
    """Return a host as ASCII: a name in its IDNA form, an IPv4 or IPv6 address (without brackets).

    Raises :class:`InputError` that begins with ``otherwise``.
    """
    if ":" in text:
        bare, _, zone = text.partition("%")
        try:
            ipaddress.IPv6Address(bare)
        except ValueError as error:
            raise InputError(f"{otherwise}: {bare!r} is not an IPv6 address") from error
        return f"{bare}%{zone.removeprefix('25')}" if zone else bare
    try:
        name = text if text.isascii() else text.encode("idna").decode("ascii")
    except UnicodeError as error:
        raise InputError(f"{otherwise}: {text!r} is not a host name") from error
    labels = name.removesuffix(".").split(".")
    if len(name) > _MAX_HOST or not all(_LABEL.fullmatch(label) for label in labels):
        rule = f"a name is letters, digits, '-', '_' and dots, at most 63 between dots, {_MAX_HOST} in all"
        raise InputError(f"{otherwise}: {rule}")
    if labels[-1].isdecimal():
        try:
            ipaddress.IPv4Address(name)
        except ValueError as error:
            raise InputError(f"{otherwise}: {name!r} is not an IPv4 address") from error
    return name


def parse_address(text: str) -> tuple[str, int]:
    """Parse ``HOST:PORT`` or ``[IPV6]:PORT``; port 0 is allowed. Raises :class:`InputError`."""
    text = text.strip()
    host, colon, port = text.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    bare = host[1:-1] if bracketed else host
    if "//" in text:
        raise InputError("not HOST:PORT: leave out the scheme and the path")
    if not colon or not bare or (":" in bare) != bracketed or not (port.isascii() and port.isdecimal()):
        raise InputError("not HOST:PORT")
    if len(port) > 5 or int(port) > _MAX_PORT:
        raise InputError(f"a port is at most {_MAX_PORT}")
    return parse_host(bare, "not HOST:PORT"), int(port)


def parse_header(text: str) -> tuple[str, str]:
    """Parse ``NAME=VALUE``, or curl's ``NAME: VALUE``; whichever sign comes first divides.

    A name has neither sign, so a value keeps all of its own (``Basic dTpwdw==``). Raises :class:`InputError`.
    """
    found = _TOKEN.match(text.lstrip())
    rest = text.lstrip()[found.end() :].lstrip(" \t") if found else ""
    if found is None or not rest.startswith(("=", ":")):
        raise InputError("write NAME=VALUE")
    name, value = found[0], rest[1:].strip(" \t")
    if not all(character.isprintable() or character == "\t" for character in value):
        raise InputError("write NAME=VALUE, without line ends or other control characters in the value")
    if name.lower() in _FRAMING:
        raise InputError(f"{name} is written with each request: it cannot be given")
    return name, value


def parse_header_name(text: str) -> str:
    """Return a field name (RFC 9110, section 5.1); raises :class:`InputError`."""
    if not _TOKEN.fullmatch(text):
        raise InputError("a header's name is letters, digits and '-'")
    return text


def parse_key(text: str) -> str:
    """Return an API key or bearer token, white space around it (a file's last newline) removed.

    Raises :class:`InputError` where it cannot be sent as ``Authorization: Bearer KEY``.
    """
    key = text.strip()
    if not key.isascii() or not key.isprintable():
        raise InputError("must be printable ASCII on one line")
    if key.lower().startswith("bearer "):
        raise InputError("must be the key alone, without 'Bearer'")
    return key


def parse_duration(text: str) -> float:
    """Return the seconds of ``200ms``, ``10s``, ``1.5m`` or ``2h``; raises :class:`InputError`."""
    found = _DURATION.fullmatch(text.strip())
    if not found:
        raise InputError(f"{text!r} is not a duration: write a number and a unit, as 200ms, 10s, 2m")
    seconds = float(found[1]) * _UNIT_SECONDS[found[2]]
    if seconds > MAX_SECONDS:
        raise InputError(f"{text!r} is too long: at most {MAX_SECONDS:g} s")
    return seconds


def parse_whole(text: str) -> int:
    """Parse a whole number of at most 63 bits, as ``64`` or ``1_000``; raises :class:`InputError`."""
    try:
        value = int(text) if text.isascii() else None
    except ValueError:  # also for more digits than Python converts
        value = None
    if value is None:
        raise InputError("must be a whole number")
    if abs(value) >= 2**63:
        raise InputError("must be a whole number of at most 63 bits")
    return value


def parse_number(text: str) -> float:
    """Parse a finite number in ASCII, as ``0.5`` or ``1e3``; raises :class:`InputError`."""
    try:
        value = float(text) if text.isascii() else math.nan
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise InputError("must be a number")
    return value


def decode_text(data: bytes) -> str:
    """Decode a text file: UTF-8, with or without a byte order mark, or UTF-16 with one.

    Editors and shells of Windows write both. Raises :class:`InputError`.
    """
    utf16 = data.startswith((b"\xff\xfe", b"\xfe\xff"))
    try:
        return data.decode("utf-16" if utf16 else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(
            f"not UTF-8 text ({error.reason} at byte {error.start}): save it as UTF-8"
        ) from error
