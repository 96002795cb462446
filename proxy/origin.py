"""A backend's URL, read once for all: where to connect to, with TLS or without."""

import ssl
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from proxy.config import Backend, ConfigError

UNIX: Final = "unix:"


@dataclass(frozen=True, slots=True)
class Origin:
    """``socket`` None: ``host`` and ``port`` are connected to; else the Unix socket of that path."""

    host: str
    port: int  # 0: there is none
    socket: str | None
    tls: bool
    prefix: str  # of every path; begins with a slash, or is empty
    authority: str  # the Host header

    @property
    def server(self) -> tuple[str, int | None]:
        """``server.address`` and ``server.port`` of OpenTelemetry: a socket's path and no port."""
        return (self.host, self.port) if self.socket is None else (self.socket, None)


def origin_of(url: str) -> Origin:
    """Of ``http://HOST[:PORT]``, ``https://HOST[:PORT]`` or ``unix:/PATH``; raises ``ValueError``."""
    if url.startswith(UNIX):
        return Origin("localhost", 0, url.removeprefix(UNIX), False, "", "localhost")
    parts = urlsplit(url)
    tls = parts.scheme == "https"
    return Origin(
        parts.hostname or "",
        parts.port or (443 if tls else 80),
        None,
        tls,
        parts.path.rstrip("/"),
        parts.netloc.rpartition("@")[2],
    )


def tls_of(backend: Backend) -> ssl.SSLContext | None:
    """How a backend's certificate is checked; None where there is no TLS.

    Raises :class:`~proxy.config.ConfigError` where its ``ca_file`` cannot be used.
    """
    if not origin_of(backend.url).tls:
        return None
    try:
        context = ssl.create_default_context(cafile=backend.ca_file)
    except OSError as error:  # ssl.SSLError is one
        raise ConfigError(
            f"backend {backend.name or backend.url}: ca_file {backend.ca_file!r}: "
            f"{error.strerror or error}: must be a file of PEM certificates"
        ) from error
    if not backend.verify_tls:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def serving_tls(certificate: str | None, key: str | None) -> ssl.SSLContext | None:
    """What clients are shown; None where there is no TLS. Raises :class:`~proxy.config.ConfigError`."""
    if certificate is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(certificate, key)
    except OSError as error:
        raise ConfigError(
            f"--tls-certificate {certificate!r}, --tls-key {key!r}: {error.strerror or error}: "
            "must be PEM files of a certificate chain and its key"
        ) from error
    return context
