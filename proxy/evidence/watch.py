"""Watching for work that did not pass through: once a second, for each backend, one piece of evidence.

Two witnesses: the engine's own metrics (requests that came another way) and the driver's list of processes
(engines that are not ours). What they say together goes to the core as :class:`Outside`; changes are logged.
A witness that does not answer says nothing, and nothing is assumed for it.
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
_PIDS_EVERY: Final = 10  # looks: processes of an engine seldom change
_LOG = logging.getLogger(__name__)

Processes = Callable[[], Mapping[str, Mapping[int, float | None]]]


@dataclass(slots=True)
class _Watched:
    """One backend: its devices, and what was last said of it."""

    backend: Backend
    devices: tuple[str, ...]
    comparison: Comparison = field(default_factory=Comparison)
    metrics: bool | None = None  # whether it has vLLM's; None: not known yet
    own: frozenset[int] | None = None
    last_ns: int | None = None
    warned: str = ""
    client: httpx.AsyncClient | None = None  # its own

    @property
    def metrics_url(self) -> str:
        """Where its metrics are."""
        base = "http://localhost" if origin_of(self.backend.url).socket else self.backend.url
        return f"{base}/metrics"


def _own_client(backend: Backend) -> httpx.AsyncClient | None:
    """For what takes more than a URL to be reached (a socket, a certificate); it keeps nothing open."""
    origin, tls = origin_of(backend.url), tls_of(backend)
    if origin.socket is None and tls is None:
        return None
    alone = httpx.Limits(max_keepalive_connections=0)
    transport = httpx.AsyncHTTPTransport(verify=tls or True, uds=origin.socket, limits=alone)
    return httpx.AsyncClient(transport=transport, timeout=_TIMEOUT_SECONDS)


class Watch:
    """``ours`` gives the proxy's view of a backend, ``processes`` the driver's lists by device (or None)."""

    def __init__(
        self,
        backends: Sequence[Backend],
        devices: Mapping[str, tuple[str, ...]],
        ours: Callable[[str], OurState],
        emit: Callable[[Outside], None],
        processes: Processes | None = None,
    ) -> None:
        self._watched: list[_Watched] = []
        self.follow(backends, devices)
        self._ours = ours
        self._emit = emit
        self._processes = processes
        self._looks = 0

    def follow(self, backends: Sequence[Backend], devices: Mapping[str, tuple[str, ...]]) -> None:
        """New backends; what is known of those that stay is kept."""
        known = {(watched.backend, watched.devices): watched for watched in self._watched}
        wanted = [(backend, devices[backend.name or backend.url]) for backend in backends]
        self._watched = [known.get(key) or _Watched(*key, client=_own_client(key[0])) for key in wanted]

    async def run(self) -> None:
        """Look once a second until cancelled."""
        async with httpx.AsyncClient(timeout=_TIMEOUT_SECONDS) as client:
            while True:
                await asyncio.gather(self.look(client), asyncio.sleep(INTERVAL_SECONDS))

    async def look(self, client: httpx.AsyncClient) -> None:
        """One look at all backends; emits evidence for those of which something is known."""
        lists = {} if self._processes is None else dict(await asyncio.to_thread(self._processes))
        for watched in self._watched:
            if self._looks % _PIDS_EVERY == 0 and lists:
                watched.own = await asyncio.to_thread(engine_pids, watched.backend.url)
        self._looks += 1
        for watched in self._watched:
            await self._look_at(watched, client, lists)

    async def _look_at(
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
        """What the engine's metrics say beyond ours; None where it has none or does not answer."""
        if watched.metrics is False:
            return None
        try:
            answer = await (watched.client or client).get(watched.metrics_url)
            state = parse_metrics(answer.text) if answer.status_code == 200 else None
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
        """Foreign processes on the backend's devices, and their share; None where it cannot be told."""
        here = [lists[device] for device in watched.devices if device in lists]
        if watched.own is None or not here:
            return (), None
        merged = [foreign_share(processes, watched.own) for processes in here]
        pids = tuple(sorted({pid for foreign, _ in merged for pid in foreign}))
        shares = [share for _, share in merged if share is not None]
        return pids, max(shares) if len(shares) == len(merged) else None

    @staticmethod
    def _warn(
        watched: _Watched, unseen: Unseen | None, foreign: tuple[int, ...], share: float | None
    ) -> None:
        """Say what changed, once."""
        lines = []
        if unseen is not None and unseen.share:
            ways = "sent to it directly, or to an unmetered path"
            lines.append(f"requests run in its engine that are not metered here ({ways})")
        if foreign:
            known = "" if share is not None else ", whose share of the energy the driver does not tell"
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
                _LOG.info("%s: no work of others any more", name)
