"""``jouleproxy serve`` as installed, on free ports, for end-to-end tests."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from tests.timing import PATIENCE_SECONDS

COMMAND = Path(sys.executable).with_name("jouleproxy")
START_SECONDS = PATIENCE_SECONDS


@dataclass(frozen=True, slots=True)
class Serving:
    """Where a running proxy listens; ``process`` to signal it."""

    url: str
    admin: str
    process: "subprocess.Popen[bytes]"


@contextmanager
def serving(
    upstream: str | None,
    *words: str,
    variables: Mapping[str, str] | None = None,
    program: Sequence[str] = (str(COMMAND),),
) -> Iterator[Serving]:
    """Run a proxy; it is stopped by SIGTERM after the block, and must exit with status 0.

    ``upstream`` None: the words name the backends. ``program``: the command instead of ``jouleproxy``.
    """
    data, admin = (f"127.0.0.1:{free_port()}" for _ in range(2))
    where = [] if upstream is None else ["--upstream", upstream]
    command = [*program, *where, "--listen", data, "--admin", admin, *words]
    process = subprocess.Popen(command, env={**os.environ, **(variables or {})})
    try:
        wait_until_ready(f"http://{admin}/readyz", process)
        yield Serving(f"http://{data}", f"http://{admin}", process)
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE_SECONDS) == 0
    finally:
        process.kill()
        process.wait()


@asynccontextmanager
async def serving_beside(*words: str, variables: Mapping[str, str] | None = None) -> AsyncIterator[Serving]:
    """Do the same while the event loop runs (for backends in this loop that are health-checked)."""
    running = serving(None, *words, variables=variables)
    proxy = await asyncio.to_thread(running.__enter__)
    try:
        yield proxy
    finally:
        await asyncio.to_thread(running.__exit__, None, None, None)


async def until_measured(proxy: Serving, devices: int = 1) -> None:
    """Wait until so many devices have shown their power: what begins then has a reading before it."""
    async with asyncio.timeout(PATIENCE_SECONDS), httpx.AsyncClient() as client:
        while True:
            found = (await client.get(f"{proxy.admin}/energy/devices")).json()["devices"]
            if sum(device.get("watts") is not None for device in found) == devices:
                return
            await asyncio.sleep(0.02)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


def wait_until_ready(url: str, process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        assert process.poll() is None, f"it ended with status {process.returncode} at start"
        try:
            if httpx.get(url, timeout=1.0).status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.05)
    raise TimeoutError(f"{url} was not ready within {START_SECONDS} s")
