"""Client of the proxy's admin port: clock, device accounts, energy records of requests."""

import time
from collections.abc import Callable, Sequence
from typing import TypeVar

import msgspec

from loadgen.client.http_client import Client, Target
from loadgen.energy.accounts import ClockPair, decode_clock, decode_requests, decode_window
from proxy.schema import DeviceAccount, RequestEnergy

T = TypeVar("T")
_BATCH = 500  # ids per request
_WAIT_S = 5  # for which the proxy may wait until records are final
_CLOCK_TIMEOUT_S = 2.0


class AdminError(Exception):
    """The admin port failed; the message is the reason."""


class Admin:
    """Queries the admin port; every failure raises :class:`AdminError`.

    ``token`` is the bearer token. With ``devices``, accounts are limited to these, such as those of one
    backend of several. Needs a running event loop; call ``close`` at the end.
    """

    def __init__(self, url: str, devices: Sequence[str] = (), token: str | None = None) -> None:
        self._client = Client(Target(url))
        self._headers = f"Authorization: Bearer {token}\r\n".encode() if token else b""
        self._devices = devices
        self.url = url

    async def clock(self) -> ClockPair:
        """Return a reading of the proxy's clock, paired with local time; the fastest of three requests."""
        best: tuple[int, ClockPair] | None = None
        for _ in range(3):
            before = time.monotonic_ns()
            data = await self._fetch("GET", "/energy/clock", limit_s=_CLOCK_TIMEOUT_S)
            found = self._decoded(decode_clock, data)
            took = time.monotonic_ns() - before
            if best is None or took < best[0]:
                best = took, ClockPair(found, before + took // 2)
        if best is None:
            raise AdminError("no reading")
        return best[1]

    async def window(self, start_ns: int, end_ns: int) -> list[DeviceAccount]:
        """Return the accounts of [start_ns, end_ns) on the proxy's clock, once that window is measured."""
        query = f"start_ns={start_ns}&end_ns={end_ns}&wait_seconds={_WAIT_S}"
        accounts = self._decoded(decode_window, await self._fetch("GET", f"/energy/window?{query}"))
        known = {account.device for account in accounts}
        if missing := [name for name in self._devices if name not in known]:
            raise AdminError(f"--devices: the proxy has no {missing[0]}, it has {', '.join(sorted(known))}")
        return [account for account in accounts if not self._devices or account.device in self._devices]

    async def requests(self, ids: list[str]) -> list[RequestEnergy]:
        """Return the records of these requests, after they are final; unknown ids are absent."""
        found: list[RequestEnergy] = []
        path = f"/energy/requests?wait_seconds={_WAIT_S}"
        for at in range(0, len(ids), _BATCH):
            body = msgspec.json.encode(ids[at : at + _BATCH])
            found += self._decoded(decode_requests, await self._fetch("POST", path, body))
        return found

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()

    @staticmethod
    def _decoded(decode: Callable[[bytes], T], data: bytes) -> T:
        try:
            return decode(data)
        except (ValueError, msgspec.MsgspecError) as error:
            raise AdminError(f"malformed response of the admin port: {error}") from error

    async def _fetch(self, method: str, path: str, body: bytes = b"", limit_s: float = _WAIT_S + 10) -> bytes:
        try:
            code, data = await self._client.fetch(
                method, path, headers=self._headers, body=body, limit_s=limit_s
            )
        except (OSError, TimeoutError) as error:
            raise AdminError(
                f"no admin port of a proxy at {self.url} ({str(error) or 'timed out'})"
            ) from error
        if code in {401, 403}:
            raise AdminError(f"{self.url} answered HTTP {code}: give --admin-token or JOULEPROXY_ADMIN_TOKEN")
        if code != 200:
            raise AdminError(f"{self.url}{path.partition('?')[0]} answered HTTP {code}")
        return data
