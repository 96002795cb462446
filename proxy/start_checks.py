"""Checks before ``jouleproxy serve`` starts its children: ports, files, certificates, backends.

A mistake is then one line of the supervisor instead of a child process that ends repeatedly. Each function
raises :class:`~proxy.config.ConfigError` with the setting and the remedy.
"""

import errno
import os
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from proxy.config import Address, Backend, Config, ConfigError
from proxy.config.origin import origin_of, serving_tls, tls_of
from proxy.inputs import Origin

# Longest check of a connection to a backend, even if requests may take longer.
_LONGEST_CHECK_SECONDS: Final = 60.0
_PLAIN_HTTP_SECONDS: Final = 1.0  # a server that expects TLS rejects plain HTTP immediately


@contextmanager
def reserved(address: Address, option: str) -> Iterator[Address]:
    """Choose a free port for port 0, and keep the address reserved for the workers (``SO_REUSEPORT``)."""
    settled = free_address(address, option)
    with _bound(settled, reuse_port=True):
        yield settled


def free_address(address: Address, option: str) -> Address:
    """Return the address with port 0 replaced by a free one; raises :class:`ConfigError` if it is in use."""
    try:
        with _bound(address) as probe:
            return Address(address.host, probe.getsockname()[1])
    except OSError as error:
        remedy = {
            errno.EADDRINUSE: "is in use: stop what listens there or give another port",
            errno.EACCES: "cannot be bound by this user: give a port above 1023",
        }.get(error.errno or 0, f"cannot be bound: {error.strerror}")
        raise ConfigError(f"{option} {show(address)} {remedy}") from error


def _bound(address: Address, *, reuse_port: bool = False) -> socket.socket:
    family, _, _, _, where = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)[0]
    made = socket.socket(family, socket.SOCK_STREAM)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if reuse_port:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        made.bind(where)
    except OSError:
        made.close()
        raise
    return made


def check_certificates(config: Config) -> None:
    """Raise :class:`ConfigError` unless all files of certificates and keys can be used."""
    serving_tls(config.relay.tls_certificate, config.relay.tls_key)
    for backend in config.backends:
        tls_of(backend)


def check_output(option: str, path: Path) -> None:
    """Raise :class:`ConfigError` where a file could not be written; nothing is created."""
    folder = path.parent
    if path.is_dir():
        reason = "it is a directory: name a file in it"
    elif not folder.is_dir():
        reason = f"the directory {folder} does not exist: create it first"
    elif not os.access(path if path.exists() else folder, os.W_OK):
        reason = "no permission to write there"
    else:
        return
    raise ConfigError(f"{option} {str(path)!r} cannot be written: {reason}")


def check_backend(backend: Backend, timeout_seconds: float) -> None:
    """Raise :class:`ConfigError` unless a connection to the backend can be opened."""
    origin, tls = origin_of(backend.url), tls_of(backend)
    hint = ""
    try:
        with _connected(origin, min(timeout_seconds, _LONGEST_CHECK_SECONDS)) as connection:
            if tls is not None:
                hint = "; one without TLS is http://"
                tls.wrap_socket(connection, server_hostname=origin.host).close()
            elif origin.socket is None and _rejects_plain_http(connection, origin) and _accepts_tls(origin):
                https = backend.url.replace("http://", "https://", 1)
                raise ConfigError(f"upstream {backend.url} expects TLS: is {https} meant?")
    except OSError as error:
        if isinstance(error, ssl.SSLCertVerificationError):
            hint = "; ca_file names its authority, verify_tls = false trusts it as it is"
        reason = error.strerror or str(error)
        raise ConfigError(
            f"upstream {backend.url} cannot be reached ({reason}): start it or correct the URL{hint}; "
            "--no-check-upstream starts without this check"
        ) from error


def _rejects_plain_http(connection: socket.socket, origin: Origin) -> bool:
    """Return whether a server treats a request without TLS as one that expects TLS does.

    Such a server closes the connection, sends a TLS alert or a 400 (nginx, Go). False if there is no reaction
    within ``_PLAIN_HTTP_SECONDS``.
    """
    connection.settimeout(_PLAIN_HTTP_SECONDS)
    try:
        path = f"{origin.prefix}/v1/models"
        request = f"GET {path} HTTP/1.1\r\nHost: {origin.authority}\r\nConnection: close\r\n\r\n"
        connection.sendall(request.encode("latin-1"))
        begin = connection.recv(4096)
    except TimeoutError:
        return False
    except OSError:
        return True
    return not begin.startswith(b"HTTP/") or b" 400 " in begin[:16]


def _accepts_tls(origin: Origin) -> bool:
    """Return whether the server completes a TLS handshake; its certificate does not matter."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        with _connected(origin, _PLAIN_HTTP_SECONDS) as connection:
            context.wrap_socket(connection, server_hostname=origin.host).close()
    except OSError as error:
        # A server that requires a certificate of the client, or another version, sends an alert.
        return isinstance(error, ssl.SSLError) and "ALERT" in str(error)
    return True


def _connected(origin: Origin, timeout_seconds: float) -> socket.socket:
    if origin.socket is None:
        return socket.create_connection((origin.host, origin.port), timeout_seconds)
    made = socket.socket(socket.AF_UNIX)
    try:
        made.settimeout(timeout_seconds)
        made.connect(origin.socket)
    except OSError:
        made.close()
        raise
    return made


def show(address: Address) -> str:
    """Return ``HOST:PORT`` as in a URL."""
    host = f"[{address.host}]" if ":" in address.host else address.host
    return f"{host}:{address.port}"
