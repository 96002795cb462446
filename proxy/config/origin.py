"""A backend's URL and certificates: where to connect to, with TLS or without."""

import ssl

from proxy.config.records import Backend, ConfigError
from proxy.inputs import Origin, parse_url


def origin_of(url: str) -> Origin:
    """Parse a backend's URL, ``unix:/PATH`` included; raises ``ValueError``."""
    return parse_url(url, unix=True)


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
