"""Mixed load: every answer is checked byte for byte, whatever happens to it on the way.

A response that ends cleanly must be the complete expected one, an interrupted one a prefix of it; an
error must be the backend's own or the proxy's, in OpenAI's shape. All else is ``wrong``.
"""

import asyncio
import hashlib
import random
from collections import Counter
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

import aiohttp
import msgspec

from tests.soak.content import ERROR, Asked, blob, large, streamed, whole

KINDS = {"json": 40, "stream": 30, "upload": 7, "slow": 6, "cancel": 12, "tunnel": 5}
_TIMEOUT = aiohttp.ClientTimeout(total=60)
_CHAT = "/v1/chat/completions"
_PAUSE_SECONDS = 0.08
_BROKEN = (aiohttp.ClientError, ConnectionError, asyncio.IncompleteReadError, TimeoutError)
JSON = {"Content-Type": "application/json"}


class Load:
    """``seen`` counts outcomes by (kind, outcome); ``wrong`` describes failed checks."""

    def __init__(self, url: str, seed: int) -> None:
        self._url = url
        self._rng = random.Random(seed)
        self.seen: Counter[tuple[str, str]] = Counter()
        self.wrong: list[str] = []
        self.open = 0

    async def run(self, users: int, stop: asyncio.Event) -> None:
        """Run users that send one request after the other, until stopped."""
        connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=2.0)
        async with (
            aiohttp.ClientSession(self._url, connector=connector, timeout=_TIMEOUT) as session,
            asyncio.TaskGroup() as group,
        ):
            for _ in range(users):
                group.create_task(self._user(session, stop))

    async def _user(self, session: aiohttp.ClientSession, stop: asyncio.Event) -> None:
        while not stop.is_set():
            (kind,) = self._rng.choices(list(KINDS), weights=list(KINDS.values()))
            seed = self._rng.randrange(1 << 40)
            self.open += 1
            try:
                outcome = await getattr(self, f"_{kind}")(session, seed)
            except _BROKEN as error:
                outcome = f"broken: {type(error).__name__}" if isinstance(error, TimeoutError) else "broken"
            self.open -= 1
            self.seen[kind, outcome] += 1
            await asyncio.sleep(self._rng.random() * 2 * _PAUSE_SECONDS)

    def _judge(self, answer: aiohttp.ClientResponse, got: bytes, expected: bytes, *, ended: bool) -> str:
        if answer.status == 200:
            right = got == expected if ended else expected.startswith(got)
            outcome = "ok" if ended else "broken"
        elif got == ERROR:
            right, outcome = True, "backend's error"
        else:
            right = not ended or _is_ours(answer.status, got)
            outcome = f"error {answer.status}"
        if not right:
            self.wrong.append(
                f"{answer.method} {answer.url.path}: {answer.status}, {len(got)} bytes, {ended=}"
            )
            return "wrong"
        return outcome

    async def _read(self, answer: aiohttp.ClientResponse, expected: bytes, gap_seconds: float = 0.0) -> str:
        got = b""
        try:
            async for piece in answer.content.iter_chunked(65_536):
                got += piece
                if gap_seconds:
                    await asyncio.sleep(gap_seconds)
        except _BROKEN:
            return self._judge(answer, got, expected, ended=False)
        return self._judge(answer, got, expected, ended=True)

    async def _json(self, session: aiohttp.ClientSession, seed: int) -> str:
        async with session.post(_CHAT, data=Asked(seed, stream=False).body, headers=JSON) as answer:
            return await self._read(answer, whole(seed))

    async def _stream(self, session: aiohttp.ClientSession, seed: int) -> str:
        asked = Asked(seed, stream=True, usage=bool(seed % 2))
        async with session.post(_CHAT, data=asked.body, headers=JSON) as answer:
            return await self._read(answer, streamed(asked))

    async def _upload(self, session: aiohttp.ClientSession, seed: int) -> str:
        body = blob(seed, 200_000 + seed % 1_000_000)

        async def pieces() -> AsyncIterator[bytes]:
            for start in range(0, len(body), 50_000):
                yield body[start : start + 50_000]
                await asyncio.sleep(0)

        headers = {} if seed % 2 else {"Content-Length": str(len(body))}  # else in chunks
        async with session.post("/upload", data=pieces(), headers=headers) as answer:
            return await self._read(answer, hashlib.sha256(body).hexdigest().encode())

    async def _slow(self, session: aiohttp.ClientSession, seed: int) -> str:
        async with session.get(f"/large/{seed}") as answer:
            return await self._read(answer, large(seed), gap_seconds=0.03)

    async def _cancel(self, session: aiohttp.ClientSession, seed: int) -> str:
        """Leave after some milliseconds: before the answer, or within it."""
        asked = Asked(seed, stream=True)
        try:
            async with asyncio.timeout((seed % 80) / 1000):
                async with session.post(_CHAT, data=asked.body, headers=JSON) as answer:
                    return await self._read(answer, streamed(asked))
        except TimeoutError:
            return "left"

    async def _tunnel(self, _session: aiohttp.ClientSession, seed: int) -> str:
        parts = urlsplit(self._url)
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
        try:
            async with asyncio.timeout(20):
                writer.write(
                    b"GET /ws HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
                )
                head = await reader.readuntil(b"\r\n\r\n")
                if b" 101 " not in head:
                    return f"error {head.split()[1].decode()}"
                for turn in range(5):
                    said = blob(seed + turn, 20_000)
                    writer.write(said)
                    if await reader.readexactly(len(said)) != said:
                        self.wrong.append("a tunnel's echo")
                        return "wrong"
        finally:
            writer.transport.abort()
        return "ok"


def _is_ours(status: int, body: bytes) -> bool:
    try:
        error = msgspec.json.decode(body)["error"]
    except (msgspec.DecodeError, KeyError, TypeError):
        return False
    return status in {502, 503, 504} and error.keys() == {"message", "type", "param", "code"}
