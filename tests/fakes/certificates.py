"""Certificates of an authority made up for a test. The only file that imports trustme."""

import ssl
from dataclasses import dataclass
from pathlib import Path

import trustme


@dataclass(frozen=True, slots=True)
class Certificates:
    """PEM files: the authority's certificate, and the chain and key of a server; ``server`` uses these."""

    authority: str
    chain: str
    key: str
    server: ssl.SSLContext


def certificates(folder: Path, *names: str) -> Certificates:
    """For a server of these host names and addresses."""
    authority = trustme.CA()
    ca, chain, key = (str(folder / name) for name in ("ca.pem", "chain.pem", "key.pem"))
    server = authority.issue_cert(*names)
    authority.cert_pem.write_to_path(ca)
    for pem in server.cert_chain_pems:
        pem.write_to_path(chain, append=True)
    server.private_key_pem.write_to_path(key)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server.configure_cert(context)
    return Certificates(ca, chain, key, context)
