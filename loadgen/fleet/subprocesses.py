"""Worker processes on this machine, called over pipes: ``loadgen --workers N``.

A frame is a 4-byte big-endian length and MessagePack: ``[id, method, arguments]`` to the worker,
``[id, error, result]`` from it. Several calls may be in progress: the leader polls progress while a point
runs.
"""

import asyncio
import contextlib
import itertools
import os
import sys
from collections.abc import AsyncIterator, Iterator
from typing import Any, BinaryIO, Final, TypeVar

import msgspec

from loadgen.drive.attack import Outcome, Progress
from loadgen.drive.event_loop import run_event_loop
from loadgen.fleet.remote import WorkerError
from loadgen.fleet.worker import Job, Worker

_END_S: Final = 5.0  # for a worker to exit by itself
_METHODS: Final = frozenset({"clock", "prepare", "go", "progress", "interrupt", "close"})
_T = TypeVar("_T")
_Reply = tuple[int, str | None, msgspec.Raw]


async def start_workers(job: Job) -> list["WorkerProcess"]:
    """Start ``job.workers`` processes and send their jobs; raises ``WorkerError``."""
    numbers = range(job.workers)
    workers = [await WorkerProcess.start(f"worker {number + 1} of {job.workers}") for number in numbers]
    jobs = [msgspec.structs.replace(job, worker=number) for number in numbers]
    try:
        await asyncio.gather(*(worker.assign(own) for worker, own in zip(workers, jobs, strict=True)))
    except WorkerError:
        await asyncio.gather(*(worker.close() for worker in workers))
        raise
    return workers


class WorkerProcess:
    """The leader's end of one worker; see :class:`loadgen.fleet.remote.Remote`."""

    def __init__(self, name: str, process: asyncio.subprocess.Process) -> None:
        self.pid = process.pid
        self.name = f"{name} (pid {process.pid})"
        self._process = process
        self._ids = itertools.count()
        self._waiting: dict[int, asyncio.Future[msgspec.Raw]] = {}
        self._reading = asyncio.ensure_future(self._read())

    @classmethod
    async def start(cls, name: str) -> "WorkerProcess":
        """Start a process, which waits for its job.

        It has its own session, so that Ctrl-C reaches the leader only.
        """
        pipe = asyncio.subprocess.PIPE
        argv = (sys.executable, "-m", "loadgen.fleet.subprocesses")
        return cls(
            name,
            await asyncio.create_subprocess_exec(*argv, stdin=pipe, stdout=pipe, start_new_session=True),
        )

    async def assign(self, job: Job) -> None:
        """Send the job."""
        await self._call("assign", None, job)

    async def clock(self) -> int:
        """See ``Remote``."""
        return await self._call("clock", int)

    async def prepare(self, number: int, level: float) -> None:
        """See ``Remote``."""
        await self._call("prepare", None, number, level)

    async def go(self, start_ns: int) -> Outcome:
        """See ``Remote``."""
        return await self._call("go", Outcome, start_ns)

    async def progress(self) -> Progress:
        """See ``Remote``."""
        return await self._call("progress", Progress)

    async def interrupt(self) -> None:
        """See ``Remote``."""
        await self._call("interrupt", None)

    async def close(self) -> None:
        """Stop the process; kill it if it does not exit in time."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            await asyncio.wait_for(self._process.wait(), _END_S)
        except TimeoutError:
            self._process.kill()
            await self._process.wait()
        await self._reading

    async def _call(self, method: str, result: type[_T] | None, *arguments: Any) -> _T:
        number = next(self._ids)
        answer = self._waiting[number] = asyncio.get_running_loop().create_future()
        try:
            if self._reading.done():
                raise self._gone()
            assert self._process.stdin is not None
            self._process.stdin.write(_frame((number, method, arguments)))
            raw = await answer
        finally:
            self._waiting.pop(number, None)
        return msgspec.msgpack.decode(raw, type=result)

    async def _read(self) -> None:
        assert self._process.stdout is not None
        decoder = msgspec.msgpack.Decoder(_Reply)
        async for frame in _frames(self._process.stdout):
            number, error, result = decoder.decode(frame)
            answer = self._waiting.get(number)
            if answer is None or answer.done():
                continue
            if error is None:
                answer.set_result(result.copy())
            else:
                answer.set_exception(WorkerError(f"{self.name}: {error}"))
        await self._process.wait()
        for answer in self._waiting.values():
            if not answer.done():
                answer.set_exception(self._gone())

    def _gone(self) -> WorkerError:
        code = self._process.returncode
        how = (
            f"was killed by signal {-code}" if code is not None and code < 0 else f"ended with status {code}"
        )
        return WorkerError(f"{self.name} {how}")


def _frame(message: object) -> bytes:
    body = msgspec.msgpack.encode(message)
    return len(body).to_bytes(4, "big") + body


async def _frames(reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    """Yield frames until the other end closes."""
    with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
        while True:
            size = int.from_bytes(await reader.readexactly(4), "big")
            yield await reader.readexactly(size)


class _Served:
    """The worker's end of the pipes: executes calls and writes replies."""

    def __init__(self, replies: BinaryIO) -> None:
        self._replies = replies
        self._worker: Worker | None = None

    async def serve(self, calls: asyncio.StreamReader) -> None:
        """Execute calls until the leader closes the pipe or dies, then stop everything."""
        decoder = msgspec.msgpack.Decoder(tuple[int, str, msgspec.Raw])
        async with asyncio.TaskGroup() as tasks:
            async for frame in _frames(calls):
                number, method, arguments = decoder.decode(frame)
                tasks.create_task(self._reply(number, method, arguments.copy()))
            if self._worker is not None:
                await self._worker.interrupt()
                await self._worker.close()

    async def _reply(self, number: int, method: str, arguments: msgspec.Raw) -> None:
        error, result = None, None
        try:
            result = await self._do(method, arguments)
        except (OSError, ValueError) as failure:
            error = str(failure) or type(failure).__name__
        with contextlib.suppress(BrokenPipeError):
            self._replies.write(_frame((number, error, result)))
            self._replies.flush()

    async def _do(self, method: str, arguments: msgspec.Raw) -> object:
        if method == "assign":
            (job,) = msgspec.msgpack.decode(arguments, type=tuple[Job])
            self._worker = Worker(job)
            return None
        if self._worker is None or method not in _METHODS:
            raise ValueError(f"no method {method!r}")
        result: object = await getattr(self._worker, method)(*msgspec.msgpack.decode(arguments))
        return result


@contextlib.contextmanager
def _pipes() -> Iterator[tuple[BinaryIO, BinaryIO]]:
    """Yield standard input and output; other writes to standard output are redirected to stderr."""
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    with os.fdopen(0, "rb", closefd=False) as calls, replies:
        yield calls, replies


async def _main() -> None:
    with _pipes() as (calls, replies):
        reader = asyncio.StreamReader()
        loop = asyncio.get_running_loop()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), calls)
        await _Served(replies).serve(reader)


if __name__ == "__main__":
    run_event_loop(_main())
