"""A client, the relay and a backend without sockets: each side sends a script and keeps what it receives."""

import asyncio

from proxy.clock import now_ns
from proxy.config import Backend, RelayConfig
from proxy.ipc import Closed, Opened, ToMeter
from proxy.relay.client_connection import ClientConnection
from proxy.relay.upstreams.connections import UpstreamConnection
from proxy.relay.worker import Worker
from tests.fakes.transport import FakeTransport


class Conversation:
    """A request through the relay, without sockets."""

    def __init__(self) -> None:
        config = RelayConfig(health_checks=False)
        worker = Worker(config, [Backend("unix:/nowhere", "b")], "/nowhere")  # but for the connection below
        self.context = worker._context
        (slot,) = self.context.balancer.slots
        pool = self.context.pools[slot]
        self.upstream = UpstreamConnection(pool, 4096, config.high_water_bytes)
        self.upstream.idle_since_ns = now_ns()
        pool.put(self.upstream)
        self.backend = FakeTransport(self.upstream)
        self.client = ClientConnection(self.context)
        self.transport = FakeTransport(self.client)

    async def answered(self, request: bytes, pieces: list[bytes], *, error: bool, leaves: int | None) -> None:
        """Let the backend send its pieces and end; the client disconnects before one of them, or stays."""
        self.client.data_received(request)
        assert self.backend.written
        for number, piece in enumerate(pieces):
            if number == leaves:
                self.transport.close()
                await asyncio.sleep(0)
            if self.backend.is_closing():
                break
            self.upstream.data_received(piece)
        if not self.backend.is_closing():
            self.backend._closing = True
            self.upstream.connection_lost(ConnectionResetError() if error else None)
        for _ in range(5):
            await asyncio.sleep(0)

    async def asked(self, pieces: list[bytes]) -> None:
        """Let the client send its pieces and disconnect; the backend sends nothing."""
        for piece in pieces:
            if not self.transport.is_closing():
                self.client.data_received(piece)
            await asyncio.sleep(0)
        self.transport.close()
        for _ in range(5):
            await asyncio.sleep(0)

    def check(self, *, metered: bool) -> None:
        """Check that everything is released and ended once; one request was reported, or none."""
        told = self.check_ended()
        assert sum(isinstance(m, Opened) for m in told) == metered

    def check_ended(self) -> list[ToMeter]:
        """Check that everything is released and ended; return the messages to the meter."""
        assert not self.client.busy
        assert not self.context.tasks
        assert self.context.balancer.slots[0].outstanding == 0
        told = self.context.link._pending
        assert sum(isinstance(m, Opened) for m in told) == sum(isinstance(m, Closed) for m in told)
        return told
