import asyncio

from proxy.simulator.engine.job import Job
from proxy.simulator.server.output import Outlet, StreamOutlet
from proxy.simulator.server.responses import Head, Stream


class Written(asyncio.WriteTransport):
    """A transport that keeps what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.data: list[bytes] = []
        self.gone = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.data.append(bytes(data))

    def is_closing(self) -> bool:
        return self.gone


def streamed(count: int = 1) -> StreamOutlet:
    jobs = [Job(str(number), 1, 3) for number in range(count)]
    head = Head("x", 1, "m", chat=True, choices=count)
    return StreamOutlet(Stream(head, jobs, "length", continuous=False, final=False), jobs)


async def test_it_ends_with_the_last_token_of_the_last_job() -> None:
    outlet = Outlet(2)
    first, second = outlet.sink(0), outlet.sink(1)
    for more in (True, False):
        first(more)
    assert not outlet.ended.done()
    second(False)
    assert await outlet.ended


async def test_it_ends_once_when_the_engine_fails() -> None:
    for outlet in (Outlet(2), streamed(2)):
        outlet.sink(0)(None)
        outlet.sink(1)(None)
        assert not await outlet.ended


async def test_tokens_are_written_as_they_come_and_early_ones_when_the_head_is_out() -> None:
    outlet, transport = streamed(), Written()
    sink = outlet.sink(0)
    sink(True)
    assert transport.data == []
    outlet.open(transport, chunked=True)
    sink(False)
    assert await outlet.ended
    early, last = transport.data
    assert early.count(b"data: ") == 2  # the role, then the token
    assert b'"role":"assistant"' in early
    assert b'"finish_reason":"length"' in last
    for chunk in transport.data:
        size, _, rest = chunk.partition(b"\r\n")
        assert int(size, 16) == len(rest) - 2
        assert rest.endswith(b"\n\n\r\n")


async def test_old_clients_get_no_chunks_and_those_gone_nothing() -> None:
    outlet, transport = streamed(), Written()
    outlet.open(transport, chunked=False)
    outlet.sink(0)(True)
    assert transport.data[0].startswith(b"data: ")
    transport.gone = True
    outlet.sink(0)(False)
    assert len(transport.data) == 1
    assert await outlet.ended
