"""Active health checks, and the list of models of each backend, over connections like any other.

Each worker checks for itself, so a check also shows whether *this* process reaches the backend. A response
below 500 to the health path is a pass (a server without that path answers 404, and is alive); 5xx, no
response within ``health_timeout_seconds`` or no connection is a failure.
"""

import asyncio
import logging
import random
from collections.abc import Callable
from typing import Final

import msgspec

from proxy.api.fields import MODEL, MODEL_LIST, ModelList
from proxy.api.lenient import UnreadableError, text_of
from proxy.api.scan import items
from proxy.clock import now_ns
from proxy.config import RelayConfig
from proxy.relay.http.heads import ResponseHead
from proxy.relay.upstreams.balancer import Balancer, Slot
from proxy.relay.upstreams.connections import ConnectionPool, UpstreamConnection
from proxy.units import ns_from_seconds

_MODELS_PATH: Final = "/v1/models"
_MOST_BYTES: Final = 1024 * 1024
_log = logging.getLogger(__name__)


class CheckError(OSError):
    """A backend did not send a usable response."""


class HealthChecks:
    """One task a backend. A single backend is not checked: it gets every request anyway."""

    def __init__(
        self, config: RelayConfig, balancer: Balancer, pool_of: Callable[[Slot], ConnectionPool]
    ) -> None:
        self._config = config
        self._balancer = balancer
        self._pool_of = pool_of
        self._tasks: dict[Slot, asyncio.Task[None]] = {}
        self._read_ns: dict[Slot, int] = {}  # when its models were read

    async def start(self) -> None:
        """Check every backend once, then start the periodic checks."""
        if len(self._balancer.slots) > 1 and self._config.health_checks:
            await asyncio.gather(*(self._check(slot) for slot in self._balancer.slots))
        self._run()

    def reconfigure(self, config: RelayConfig) -> None:
        """Restart the checks with new settings and backends."""
        self.close()
        self._config = config
        self._read_ns.clear()
        self._run(at_once=True)

    def _run(self, *, at_once: bool = False) -> None:
        if len(self._balancer.slots) == 1 or not self._config.health_checks:
            for slot in self._balancer.slots:
                slot.health.unchecked(now_ns())
            return
        for slot in self._balancer.slots:
            self._tasks[slot] = asyncio.get_running_loop().create_task(self._watch(slot, at_once=at_once))

    def close(self) -> None:
        """Stop all checks."""
        for task in self._tasks.values():
            task.cancel()
        self._tasks.clear()

    async def _watch(self, slot: Slot, *, at_once: bool) -> None:
        loop, every = asyncio.get_running_loop(), self._config.health_interval_seconds
        if at_once:
            await self._check(slot)
        due = loop.time() + random.random() * every  # workers and backends not all at the same time
        while True:
            await asyncio.sleep(due - loop.time())
            await self._check(slot)
            due = max(due + every, loop.time())

    async def _check(self, slot: Slot) -> None:
        """Check one backend; read its models if it passes and they are missing or outdated."""
        failure = await self._failure(slot)
        was = slot.health.state
        if slot.health.check(now_ns(), failure):
            name = slot.backend.name or slot.backend.url
            _log.warning(
                "backend %s is %s%s", name, slot.health.state, f": {failure}" if failure else " again"
            )
        if failure is not None or slot.backend.models:
            return
        read_ns = self._read_ns.get(slot)
        every = ns_from_seconds(self._config.models_interval_seconds)
        if read_ns is None or was == "down" or now_ns() - read_ns >= every:
            self._read_ns[slot] = now_ns()
            await self._read_models(slot)

    async def _failure(self, slot: Slot) -> str | None:
        """Return why a health check failed; None if it passed."""
        timeout = self._config.health_timeout_seconds
        try:
            status, _ = await get(self._pool_of(slot), self._config.health_path, timeout)
        except TimeoutError:
            return f"no answer to {self._config.health_path} within {timeout:g} s"
        except (OSError, ValueError) as error:
            return str(error)
        return f"{self._config.health_path} answers {status}" if status >= 500 else None

    async def _read_models(self, slot: Slot) -> None:
        """Read the list of models; a backend whose list is unreadable serves any model."""
        try:
            status, body = await get(self._pool_of(slot), _MODELS_PATH, self._config.health_timeout_seconds)
        except (OSError, ValueError) as error:
            _log.info("backend %s: its models are not known: %s", slot.backend.url, error)
            status, body = 0, b""
        found, unread = models_of(body) if status == 200 else ({}, 0)
        if unread:
            _log.info("backend %s: %d entries of its models cannot be read", slot.backend.url, unread)
        self._balancer.set_models(slot, found)


def models_of(body: bytes) -> tuple[dict[str, bytes], int]:
    """Return the entries of a list of models by id, and the number of entries that have no readable id.

    An entry is the backend's own JSON, for the merged list that clients see; one that would break that list
    is replaced by its id alone. Together's API answers with the array itself, some servers with names.
    """
    listed = MODEL_LIST.decode(body, []) or ModelList()
    entries = [bytes(entry) for entry in listed.data] if listed.data is not None else items(body) or []
    found: dict[str, bytes] = {}
    unread = 0
    for entry in entries:
        name = _model_id(entry)
        if name:
            found[name] = entry if _is_object(entry) else msgspec.json.encode({"id": name, "object": "model"})
        else:
            unread += 1
    return found, unread


def _model_id(entry: bytes) -> str | None:
    if not entry.startswith(b'"'):
        model = MODEL.decode(entry, [])
        return model.id if model is not None else None
    try:
        return text_of(entry)
    except UnreadableError:
        return None


def _is_object(entry: bytes) -> bool:
    try:
        return isinstance(msgspec.json.decode(entry), dict)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False


async def get(
    pool: ConnectionPool, path: str, timeout_seconds: float, headers: bytes = b""
) -> tuple[int, bytes]:
    """Return status and body of a GET over a new connection; raise ``OSError``, also on timeout.

    ``headers``: further lines of the request, each with its CRLF.
    """
    async with asyncio.timeout(timeout_seconds):
        connection = await pool.connect()
        try:
            return await _get(connection, pool, path, headers)
        finally:
            connection.abort()


async def _get(
    connection: UpstreamConnection, pool: ConnectionPool, path: str, headers: bytes
) -> tuple[int, bytes]:
    handler = _ResponseCollector()
    lines = (
        b"GET %b%b HTTP/1.1\r\n" % (pool.prefix, path.encode("latin-1")),
        b"Host: %b\r\n" % pool.host,
        headers,
        b"User-Agent: jouleproxy\r\nConnection: close\r\n\r\n",
    )
    connection.send_request(handler, b"GET", b"".join(lines))
    return await handler.whole


class _ResponseCollector:
    """Collects one response; ``whole`` completes with its status and body."""

    def __init__(self) -> None:
        self.whole: asyncio.Future[tuple[int, bytes]] = asyncio.get_running_loop().create_future()
        self._status = 0
        self._body = bytearray()

    def on_interim(self, head: ResponseHead) -> None:
        """The final one counts."""

    def on_head(self, head: ResponseHead) -> None:
        self._status = head.status

    def on_body(self, _raw: bytes, pieces: list[bytes]) -> None:
        for piece in pieces:
            self._body += piece
        if len(self._body) > _MOST_BYTES:
            self.on_lost(f"an answer of more than {_MOST_BYTES} bytes")

    def on_end(self) -> None:
        if not self.whole.done():
            self.whole.set_result((self._status, bytes(self._body)))

    def on_read(self) -> None:
        """Nothing is written on."""

    def on_lost(self, reason: str) -> None:
        if not self.whole.done():
            self.whole.set_exception(CheckError(reason))

    def on_writable(self, *, writable: bool) -> None:
        """Nothing more is sent."""
