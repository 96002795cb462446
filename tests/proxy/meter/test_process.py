import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from proxy.clock import now_ns
from proxy.config import Address, Backend, ConfigError, MeterConfig
from proxy.core.events import Arrive, Device, End, Sample
from proxy.energy.choice import Choice, OpenedSource
from proxy.energy.source import Found
from proxy.ipc import Closed, EnergyQuery, FrameBuffer, Opened, ToMeter, decode_to_relay, encode_frame
from proxy.meter.process import Process, run
from proxy.schema import decode_request
from proxy.units import NS_PER_SECOND
from tests.timing import PATIENCE_SECONDS

WATTS = 100


class Constant:
    """A counter of constant power."""

    name = "simulated"
    interval_s: float | None = None

    def open(self) -> list[Found]:
        return [Found(Device("gpu0", "one"), "energy counter", None, None)]

    def read(self) -> list[Sample]:
        t_ns = now_ns()
        return [Sample(t_ns, "gpu0", t_ns * WATTS / 1e6)]

    def close(self) -> None:
        """Nothing to give back."""


@asynccontextmanager
async def running(folder: Path, **settings: str) -> AsyncIterator[Process]:
    source = Constant()
    choice = Choice((OpenedSource(source, tuple(source.open())),))
    config = MeterConfig(admin=Address("127.0.0.1", 0), policy="overlap", **settings)  # type: ignore[arg-type]
    process = Process(config, [Backend("http://127.0.0.1:1", "b")], str(folder / "meter.sock"), choice)
    await process.start()
    try:
        yield process
    finally:
        await process.close()


class Relay:
    """A relay's side of the socket."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    def send(self, *messages: ToMeter) -> None:
        self.writer.write(encode_frame(messages))

    async def told(self) -> bytes:
        frames = FrameBuffer()
        while not (bodies := frames.feed(await self.reader.read(65_536))):
            pass
        return decode_to_relay(bodies[0])[0].energy


@asynccontextmanager
async def relay(folder: Path) -> AsyncIterator[Relay]:
    reader, writer = await asyncio.open_unix_connection(str(folder / "meter.sock"))
    try:
        yield Relay(reader, writer)
    finally:
        writer.close()


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not holds():  # noqa: ASYNC110 - it moves in ticks
            await asyncio.sleep(0.005)


def opened(name: str, t_ns: int) -> Opened:
    return Opened(1, Arrive(t_ns, name, model="m", backend="b"), path="/v1/chat/completions")


async def test_a_request_over_the_socket_is_a_record_at_the_admin_port(tmp_path: Path) -> None:
    ledger = tmp_path / "ledger.jsonl"
    async with running(tmp_path, ledger=str(ledger)) as process, relay(tmp_path) as one:
        url = f"http://127.0.0.1:{process.admin_port}"
        # A reading before it, or its beginning is not known.
        await until(lambda: any(account.watts is not None for account in process.meter.attributor.accounts()))
        start = now_ns()
        one.send(opened("a", start))
        await asyncio.sleep(0.2)
        one.send(
            Closed(1, End(now_ns(), "a", 200, False, 3, 0, 4)),
            EnergyQuery(7, "a", now_ns(), round(PATIENCE_SECONDS * NS_PER_SECOND)),
        )
        energy = await one.told()
        async with httpx.AsyncClient() as client:
            record = decode_request((await client.get(f"{url}/energy/requests/a")).content)
            metrics = (await client.get(f"{url}/metrics")).text
    assert record.final
    assert record.unknown is None
    assert record.joules is not None
    assert record.duration_s is not None
    assert record.joules == pytest.approx(WATTS * record.duration_s, rel=1e-3)
    assert str(record.joules).encode() in energy
    assert 'jouleproxy_tokens_total{kind="output",model="m"} 4.0' in metrics
    assert decode_request(ledger.read_bytes()) == record


async def test_what_a_relay_says_last_is_still_taken_at_the_end(tmp_path: Path) -> None:
    ledger = tmp_path / "ledger.jsonl"
    async with running(tmp_path, ledger=str(ledger)) as process, relay(tmp_path) as one:
        await until(lambda: process.meter.intake.relays == 1)
        start = now_ns()
        one.send(opened("last", start), Closed(1, End(now_ns(), "last", 200)))
    assert decode_request(ledger.read_bytes()).request_id == "last"


async def test_a_request_of_a_relay_that_stays_is_left_to_the_next_meter(tmp_path: Path) -> None:
    ledger = tmp_path / "ledger.jsonl"
    async with relay_of(tmp_path, ledger) as one:
        one.send(opened("running", now_ns()))
    assert ledger.read_bytes() == b"", "it was not cancelled: one record, of the meter that sees its end"


@asynccontextmanager
async def relay_of(folder: Path, ledger: Path) -> AsyncIterator[Relay]:
    """A relay that outlives the meter."""
    async with running(folder, ledger=str(ledger)):
        reader, writer = await asyncio.open_unix_connection(str(folder / "meter.sock"))
        yield Relay(reader, writer)
        await asyncio.sleep(0.1)
    assert await reader.read() == b"", "the meter hung up"
    writer.close()


async def test_a_malformed_frame_ends_that_connection_only(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(tmp_path) as process, relay(tmp_path) as good, relay(tmp_path) as bad:
        bad.writer.write(b"GET / HTTP/1.1\r\n\r\n")
        with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
            await bad.reader.readexactly(1)
        good.send(EnergyQuery(1, "nobody", now_ns()))
        assert b"not_known" in await good.told()
        assert process.meter.intake.relays == 1
    assert "malformed frame" in caplog.text


async def test_a_meter_that_cannot_tick_ends_so_that_a_new_one_is_started(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(t_ns: int) -> None:
        raise RuntimeError(f"broken at {t_ns}")

    async with running(tmp_path) as process:
        tick, process.meter.tick = process.meter.tick, broken  # type: ignore[method-assign]
        async with asyncio.timeout(PATIENCE_SECONDS):
            assert await process.ended == 1
        process.meter.tick = tick  # type: ignore[method-assign]
    assert "broken" in caplog.text


@pytest.mark.parametrize("host", ["0.0.0.0", "10.0.0.1", "localhost.example", "127.example"])
def test_beyond_loopback_a_token_is_needed(host: str) -> None:
    with pytest.raises(ConfigError, match="not loopback"):
        run(MeterConfig(admin=Address(host, 0), source="none"), [], "", -1)
