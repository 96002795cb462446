"""A meter's socket: keeps the messages of relays, and replies to their queries."""

import asyncio
from pathlib import Path
from typing import Self

from proxy.ipc import EnergyQuery, EnergyReply, FrameBuffer, ToMeter, decode_to_meter, encode_frame
from tests.timing import PATIENCE_SECONDS


class FakeMeter:
    """``messages`` in order; ``energy`` is the answer to every question, None for silence."""

    def __init__(self, folder: Path, energy: bytes | None = b'{"joules":7.5,"final":true}') -> None:
        self.socket = str(folder / "meter.sock")
        self.energy = energy
        self.messages: list[ToMeter] = []
        self.connections = 0
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_unix_server(self._serve, self.socket)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for writer in self._writers:
            writer.close()
        await asyncio.sleep(0)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers.add(writer)
        frames = FrameBuffer()
        while data := await reader.read(65_536):
            for body in frames.feed(data):
                for message in decode_to_meter(body):
                    self.messages.append(message)
                    if isinstance(message, EnergyQuery) and self.energy is not None:
                        writer.write(encode_frame([EnergyReply(message.number, self.energy)]))
        writer.close()

    async def until(self, kind: type, count: int = 1) -> list[ToMeter]:
        """Messages of a kind, once there are so many."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while len(found := [m for m in self.messages if isinstance(m, kind)]) < count:  # noqa: ASYNC110
                await asyncio.sleep(0.005)
        return found
