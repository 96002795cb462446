"""Parse the URL of a backend, and load the certificates of backends and of the data port."""

import ssl

from proxy.config.records import Backend, ConfigError
from proxy.inputs import Origin, parse_url


def origin_of(url: str) -> Origin:
    """Parse a backend's URL, which may be ``unix:/PATH``; raises ``ValueError``."""
    return parse_url(url, unix=True)


def tls_of(backend: Backend) -> ssl.SSLContext | None:
    """Return the TLS context that verifies a backend's certificate; None for a URL without TLS.

    Raises :class:`~proxy.config.ConfigError` if its ``ca_file`` cannot be used.
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
    """Return the TLS context of the data port; None without a certificate.

    Raises :class:`~proxy.config.ConfigError` if the files cannot be used.
    """
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
