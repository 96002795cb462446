"""``jouleproxy serve`` as a user starts it, in front of a running engine."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import httpx

from proxy.schema import RequestEnergy, decode_request
from tests.engines.device import Device
from tests.engines.serving import Command, free_port, running, until

START_SECONDS: Final = 20.0
FINAL_SECONDS: Final = 15.0


@dataclass(frozen=True, slots=True)
class Jouleproxy:
    """A running proxy: where clients point, its admin port, and the device it reads."""

    url: str
    admin: str
    device: Device

    def final_record(self, request_id: str) -> RequestEnergy:
        """Return the record of a request once it is final; raises ``TimeoutError``."""
        until(lambda: self._is_final(request_id), seconds=FINAL_SECONDS)
        return decode_request(self._record(request_id).content)

    def get(self, path: str) -> httpx.Response:
        """Return a response of the admin port; raises ``httpx.HTTPStatusError``."""
        return httpx.get(f"{self.admin}{path}", timeout=10.0).raise_for_status()

    def _record(self, request_id: str) -> httpx.Response:
        return httpx.get(f"{self.admin}/energy/requests/{request_id}", timeout=10.0)

    def _is_final(self, request_id: str) -> bool:
        answer = self._record(request_id)
        return answer.status_code == 200 and decode_request(answer.content).final


@contextmanager
def serve(upstream: str, folder: Path, device: Device) -> Iterator[Jouleproxy]:
    """Start it on free ports and stop it after the block; logs and ledger go to ``folder``."""
    url, admin = (f"127.0.0.1:{free_port()}" for _ in range(2))
    command = Command(
        argv=(
            str(Path(sys.executable).with_name("jouleproxy")),
            *("serve", "--upstream", upstream, "--listen", url, "--admin", admin),
        ),
        log=folder / "jouleproxy.log",
        ready=f"http://{admin}/readyz",
        within_seconds=START_SECONDS,
        env=device.env,
    )
    with running(command):
        yield Jouleproxy(f"http://{url}", f"http://{admin}", device)
