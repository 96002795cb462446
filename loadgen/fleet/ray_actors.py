"""Workers as actors of a running Ray cluster: ``loadgen --ray ADDRESS`` (extra ``ray``).

One a node, or as many as ``--workers`` says, spread over the nodes. Each node needs jouleproxy in the version
of the leader; nothing is shipped. Hosts have monotonic clocks of their own: the leader measures each
(``fleet.offset_of``).
"""

import asyncio
from collections.abc import Awaitable
from typing import Any, Final, TypeVar

import msgspec

from loadgen.drive.attack import Outcome, Progress
from loadgen.fleet.remote import WorkerError
from loadgen.fleet.worker import Job, Worker

try:
    import ray
    from ray.exceptions import RayError
except ImportError as error:
    raise WorkerError("--ray needs Ray: pip install 'jouleproxy[ray]', on each node") from error

_REACH_S: Final = 5.0  # for a connection to its head
_PLACE_S: Final = 60.0  # for the cluster to start an actor
_CALLS: Final = 8  # to one actor at a time: a point, its progress, an interrupt
_T = TypeVar("_T")


async def start_actors(job: Job, address: str) -> list["Actor"]:
    """Actors that are ready; raises ``WorkerError``."""
    await _reach(address)
    try:
        ray.init(address=address, log_to_driver=False, logging_level="ERROR")
    except (ConnectionError, ValueError, RayError) as error:
        raise WorkerError(f"--ray {address}: no cluster there: {error}") from error
    nodes = sum(node["Alive"] for node in ray.nodes())
    count = job.workers if job.workers > 1 else nodes
    if (job.spec.max_in_flight or count) < count:  # one with a cap of none would wait for ever
        raise WorkerError(f"--max-in-flight {job.spec.max_in_flight}: at least one for each of {count} nodes")
    actor = ray.remote(Worker).options(num_cpus=1, scheduling_strategy="SPREAD", max_concurrency=_CALLS)
    handles = [
        actor.remote(msgspec.structs.replace(job, worker=number, workers=count)) for number in range(count)
    ]
    workers = [Actor(f"worker {number + 1} of {count}", handle) for number, handle in enumerate(handles)]
    try:
        await asyncio.gather(*(worker.arrive() for worker in workers))
    except WorkerError:
        await asyncio.gather(*(worker.close() for worker in workers))
        raise
    return workers


async def _reach(address: str) -> None:
    """Raise ``WorkerError`` where nobody listens: Ray itself would try for minutes."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon or not port.isdecimal():
        return  # a word of Ray's, as auto
    try:
        _, writer = await asyncio.wait_for(asyncio.open_connection(host, int(port)), _REACH_S)
    except (OSError, TimeoutError) as error:
        raise WorkerError(f"--ray {address}: no cluster there: {str(error) or 'no answer'}") from error
    writer.close()


class Actor:
    """One actor; see :class:`loadgen.fleet.remote.Remote`."""

    def __init__(self, name: str, handle: Any) -> None:
        self.name = name
        self._handle = handle

    async def arrive(self) -> None:
        """Wait until it runs somewhere."""
        try:
            host = await asyncio.wait_for(self._done(self._handle.host.remote()), _PLACE_S)
        except TimeoutError:
            free = ray.available_resources().get("CPU", 0)
            text = f"{self.name}: no place on the cluster in {_PLACE_S:g} s: it takes a CPU, {free:g} free"
            raise WorkerError(text) from None
        self.name = f"{self.name} on {host}"

    async def clock(self) -> int:
        """Its monotonic clock."""
        return await self._done(self._handle.clock.remote())

    async def prepare(self, number: int, level: float) -> None:
        """Get ready for a point."""
        await self._done(self._handle.prepare.remote(number, level))

    async def go(self, start_ns: int) -> Outcome:
        """Do it."""
        return await self._done(self._handle.go.remote(start_ns))

    async def progress(self) -> Progress:
        """How far it is."""
        return await self._done(self._handle.progress.remote())

    async def interrupt(self) -> None:
        """End it now."""
        await self._done(self._handle.interrupt.remote())

    async def close(self) -> None:
        """End the actor."""
        ray.kill(self._handle)

    async def _done(self, call: Awaitable[_T]) -> _T:
        try:
            return await call
        except RayError as error:
            reason = str(error).strip().splitlines()
            raise WorkerError(f"{self.name}: {reason[-1] if reason else type(error).__name__}") from error
