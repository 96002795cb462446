"""Poll for work that did not pass through the proxy: once a second, one :class:`Outside` for each backend.

There are two kinds of evidence: the engine's own metrics (requests that came another way) and the driver's
list of processes (other programs on the device). Their shares are combined as if independent: the engine has
the rest of the device that other processes leave, and unseen requests have their share of that. Changes are
logged. Evidence that cannot be obtained is left out; nothing is assumed for it.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import httpx

from proxy.clock import now_ns
from proxy.config import Backend
from proxy.config.origin import origin_of, tls_of
from proxy.core.events import Outside
from proxy.evidence.engine_metrics import Comparison, OurState, Unseen, parse_metrics
from proxy.evidence.processes import engine_pids, foreign_share

INTERVAL_SECONDS: Final = 1.0
_TIMEOUT_SECONDS: Final = 0.8
_PIDS_EVERY: Final = 10  # polls; the processes of an engine seldom change
_LOG = logging.getLogger(__name__)

Processes = Callable[[], Mapping[str, Mapping[int, float | None]]]


@dataclass(slots=True)
class _Watched:
    """One backend, its devices and the last results of polling it."""

    backend: Backend
    devices: tuple[str, ...]
    comparison: Comparison = field(default_factory=Comparison)
    metrics: bool | None = None  # whether it has metrics of a known engine; None: not polled yet
    own: frozenset[int] | None = None  # process ids of its engine
    last_ns: int | None = None
    warned: str = ""
    client: httpx.AsyncClient | None = None  # if it needs one of its own

    @property
    def metrics_url(self) -> str:
        """URL of its metrics page."""
        base = "http://localhost" if origin_of(self.backend.url).socket else self.backend.url
        return f"{base}/metrics"


def _own_client(backend: Backend) -> httpx.AsyncClient | None:
    """Return a client for a backend that needs more than a URL (Unix socket, certificate), else None.

    It keeps no connection open.
    """
    origin, tls = origin_of(backend.url), tls_of(backend)
    if origin.socket is None and tls is None:
        return None
    alone = httpx.Limits(max_keepalive_connections=0)
    transport = httpx.AsyncHTTPTransport(verify=tls or True, uds=origin.socket, limits=alone)
    return httpx.AsyncClient(transport=transport, timeout=_TIMEOUT_SECONDS)


class Watch:
    """Polls the backends' metrics and the driver's process lists; see the module's docstring.

    Args:
        backends: The configured backends.
        devices: Ids of the devices of each backend, by its name.
        ours: Returns the proxy's own count for a backend since the last call.
        emit: Receives the evidence.
        processes: Returns the utilisation of each process on each device, or None without such a driver.
    """

    def __init__(
        self,
        backends: Sequence[Backend],
        devices: Mapping[str, tuple[str, ...]],
        ours: Callable[[str], OurState],
        emit: Callable[[Outside], None],
        processes: Processes | None = None,
    ) -> None:
        self._watched: list[_Watched] = []
        self.set_backends(backends, devices)
        self._ours = ours
        self._emit = emit
        self._processes = processes
        self._polls = 0

    def set_backends(self, backends: Sequence[Backend], devices: Mapping[str, tuple[str, ...]]) -> None:
        """Replace the backends; results for those that remain are kept."""
        known = {(watched.backend, watched.devices): watched for watched in self._watched}
        keys = [(backend, devices[backend.name or backend.url]) for backend in backends]
        self._watched = [known.get(key) or _Watched(*key, client=_own_client(key[0])) for key in keys]

    async def run(self) -> None:
        """Poll once a second until cancelled."""
        async with httpx.AsyncClient(timeout=_TIMEOUT_SECONDS) as client:
            while True:
                await asyncio.gather(self.poll(client), asyncio.sleep(INTERVAL_SECONDS))

    async def poll(self, client: httpx.AsyncClient) -> None:
        """Poll all backends once, and emit evidence for those of which there is any."""
        lists = {} if self._processes is None else dict(await asyncio.to_thread(self._processes))
        for watched in self._watched:
            if self._polls % _PIDS_EVERY == 0 and lists:
                watched.own = await asyncio.to_thread(engine_pids, watched.backend.url)
        self._polls += 1
        for watched in self._watched:
            await self._poll_one(watched, client, lists)

    async def _poll_one(
        self, watched: _Watched, client: httpx.AsyncClient, lists: Mapping[str, Mapping[int, float | None]]
    ) -> None:
        unseen = await self._unseen(watched, client)
        foreign, share = self._foreign(watched, lists)
        t_ns = now_ns()
        start, watched.last_ns = watched.last_ns, t_ns
        self._warn(watched, unseen, foreign, share)
        if start is None or (unseen is None and share is None):
            return
        beside = share or 0.0
        together = beside + (1.0 - beside) * (unseen.share if unseen else 0.0)
        reason = "processes" if beside else "engine_metrics"
        self._emit(Outside(t_ns, start, watched.devices, together, reason if together else None))

    async def _unseen(self, watched: _Watched, client: httpx.AsyncClient) -> Unseen | None:
        """Return the engine's work beyond the proxy's; None if its metrics are missing or cannot be read."""
        if watched.metrics is False:
            return None
        try:
            response = await (watched.client or client).get(watched.metrics_url)
            state = parse_metrics(response.text) if response.status_code == 200 else None
        except (httpx.HTTPError, ValueError) as error:
            _LOG.debug("metrics of %s: %s", watched.backend.url, error)
            return None
        if watched.metrics is None:
            watched.metrics = state is not None
        if state is None:
            return None
        return watched.comparison.feed(state, self._ours(watched.backend.name or watched.backend.url))

    @staticmethod
    def _foreign(
        watched: _Watched, lists: Mapping[str, Mapping[int, float | None]]
    ) -> tuple[tuple[int, ...], float | None]:
        """Return the foreign processes on the backend's devices and their share; None if it is not known."""
        on_devices = [lists[device] for device in watched.devices if device in lists]
        if watched.own is None or not on_devices:
            return (), None
        merged = [foreign_share(processes, watched.own) for processes in on_devices]
        pids = tuple(sorted({pid for foreign, _ in merged for pid in foreign}))
        shares = [share for _, share in merged if share is not None]
        return pids, max(shares) if len(shares) == len(merged) else None

    @staticmethod
    def _warn(
        watched: _Watched, unseen: Unseen | None, foreign: tuple[int, ...], share: float | None
    ) -> None:
        """Log a change of the evidence, once."""
        lines = []
        if unseen is not None and unseen.share:
            ways = "sent to it directly, or to an unmetered path"
            lines.append(f"requests run in its engine that are not metered here ({ways})")
        if foreign:
            known = "" if share is not None else ", whose share of the energy the driver does not report"
            lines.append(
                f"other processes compute on its devices (pid {', '.join(map(str, foreign))}){known}"
            )
        text = "; ".join(lines)
        if text != watched.warned:
            watched.warned = text
            name = watched.backend.name or watched.backend.url
            if text:
                _LOG.warning("%s: %s: their energy is unattributed", name, text)
            else:
                _LOG.info("%s: no more work that did not pass through the proxy", name)
