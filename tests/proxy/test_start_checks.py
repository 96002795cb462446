import asyncio
import socket
from pathlib import Path

import pytest

from proxy.config import Address, Backend, Config, ConfigError, RelayConfig
from proxy.start_checks import check_backend, check_certificates, check_output, free_address, reserved
from tests.fakes.certificates import certificates
from tests.fakes.raw_upstream import RawUpstream, answer


def test_a_port_in_use_is_refused() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(ConfigError, match=f"--listen 127.0.0.1:{port} is in use"):
            free_address(Address("127.0.0.1", port), "--listen")
        check_backend(Backend(f"http://127.0.0.1:{port}"), 1.0)
    with pytest.raises(ConfigError, match=r"cannot be reached \(Connection refused\)"):
        check_backend(Backend(f"http://127.0.0.1:{port}"), 1.0)


async def test_an_http_upstream_that_expects_tls_is_reported_at_start(tmp_path: Path) -> None:
    made = certificates(tmp_path, "127.0.0.1")
    async with RawUpstream(answer(b""), tls=made.server) as backend:
        url = backend.url.replace("https", "http")
        with pytest.raises(ConfigError, match=f"{url} expects TLS: is {backend.url} meant"):
            await asyncio.to_thread(check_backend, Backend(url), 5.0)


@pytest.mark.parametrize("response", [b"", b"HTTP/1.1 400 No\r\n\r\n", b"HTTP/1.1 200 OK\r\n\r\n", b"SSH"])
async def test_an_upstream_without_tls_is_accepted_whatever_it_responds(response: bytes) -> None:
    async with RawUpstream(answer(response)) as backend:
        await asyncio.to_thread(check_backend, Backend(backend.url), 5.0)


def test_a_unix_socket_is_tried_as_any_backend(tmp_path: Path) -> None:
    path = str(tmp_path / "engine.sock")
    with pytest.raises(ConfigError, match="cannot be reached"):
        check_backend(Backend(f"unix:{path}"), 1.0)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        server.listen()
        check_backend(Backend(f"unix:{path}"), 1.0)


def test_certificates_are_read_before_anything_starts() -> None:
    with pytest.raises(ConfigError, match="ca_file '/nowhere'"):
        check_certificates(Config((Backend("https://h", ca_file="/nowhere"),)))
    with pytest.raises(ConfigError, match="tls-certificate '/nowhere'"):
        check_certificates(Config((), RelayConfig(tls_certificate="/nowhere", tls_key="/nowhere")))


def test_port_0_is_settled_and_kept_for_several_workers() -> None:
    with reserved(Address("127.0.0.1", 0), "--listen") as address:
        assert address.port
        with socket.socket() as worker:
            worker.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            worker.bind((address.host, address.port))


def test_a_file_that_cannot_be_written_is_refused_before_anything_starts(tmp_path: Path) -> None:
    check_output("--ledger", tmp_path / "l")
    assert not (tmp_path / "l").exists()
    (tmp_path / "file").touch()
    for path, reason in (
        (tmp_path, "it is a directory"),
        (tmp_path / "no" / "l", "the directory"),
        (tmp_path / "file" / "l", "the directory"),
    ):
        with pytest.raises(ConfigError, match=f"--ledger '{path}' cannot be written: {reason}"):
            check_output("--ledger", path)
