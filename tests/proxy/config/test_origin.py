"""Where a backend's URL leads, and which certificates are taken."""

import ssl
from pathlib import Path

import pytest

from proxy.config import Backend, ConfigError
from proxy.config.origin import origin_of, serving_tls, tls_of
from proxy.inputs import Origin
from tests.fakes.certificates import certificates


@pytest.mark.parametrize(
    ("url", "origin"),
    [
        ("http://h", Origin("h", 80, None, False, "", "h")),
        ("http://h:8000/a/b/", Origin("h", 8000, None, False, "/a/b", "h:8000")),
        ("https://[::1]", Origin("::1", 443, None, True, "", "[::1]")),
        ("unix:/run/vllm.sock", Origin("localhost", 0, "/run/vllm.sock", False, "", "localhost")),
    ],
)
def test_urls(url: str, origin: Origin) -> None:
    assert origin_of(url) == origin


def test_what_telemetry_calls_the_server() -> None:
    assert origin_of("http://h").server == ("h", 80)
    assert origin_of("unix:/a.sock").server == ("/a.sock", None)


def test_certificates_are_checked_unless_told_otherwise(tmp_path: Path) -> None:
    assert tls_of(Backend("http://h")) is None
    strict, lax = tls_of(Backend("https://h")), tls_of(Backend("https://h", verify_tls=False))
    assert strict is not None
    assert lax is not None
    assert (strict.verify_mode, strict.check_hostname) == (ssl.CERT_REQUIRED, True)
    assert lax.verify_mode == ssl.CERT_NONE
    made = certificates(tmp_path, "h")
    own = tls_of(Backend("https://h", ca_file=made.authority))
    assert own is not None
    assert len(own.get_ca_certs()) == 1


def test_files_that_are_not_certificates(tmp_path: Path) -> None:
    file = tmp_path / "text"
    file.write_text("no certificate")
    with pytest.raises(ConfigError, match="backend b: ca_file '/nowhere': No such file"):
        tls_of(Backend("https://h", "b", ca_file="/nowhere"))
    with pytest.raises(ConfigError, match="must be a file of PEM certificates"):
        tls_of(Backend("https://h", ca_file=str(file)))
    with pytest.raises(ConfigError, match=r"--tls-certificate .*No such file"):
        serving_tls("/nowhere", "/nowhere")
    assert serving_tls(None, None) is None
