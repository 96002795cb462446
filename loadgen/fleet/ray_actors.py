"""Workers as actors of a running Ray cluster: ``loadgen --ray ADDRESS`` (extra ``ray``).

One per node, or ``--workers`` in total, spread over the nodes. Each node needs the leader's version of
jouleproxy installed. Each host has its own monotonic clock, whose offset the leader measures
(``leader.offset_of``).
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

_CONNECT_S: Final = 5.0  # for a connection to the head node
_START_S: Final = 60.0  # for the cluster to start an actor
_CONCURRENT_CALLS: Final = 8  # of one actor: a point, its progress, an interrupt
_T = TypeVar("_T")


async def start_actors(job: Job, address: str) -> list["Actor"]:
    """Start the actors and wait until they are ready; raises ``WorkerError``."""
    await _reach(address)
    try:
        ray.init(address=address, log_to_driver=False, logging_level="ERROR")
    except (ConnectionError, ValueError, RayError) as error:
        raise WorkerError(f"--ray {address}: no cluster there: {error}") from error
    nodes = sum(node["Alive"] for node in ray.nodes())
    count = job.workers if job.workers > 1 else nodes
    if (job.spec.max_in_flight or count) < count:  # an actor with a cap of zero would wait forever
        raise WorkerError(f"--max-in-flight {job.spec.max_in_flight}: at least one for each of {count} nodes")
    actor = ray.remote(Worker).options(
        num_cpus=1, scheduling_strategy="SPREAD", max_concurrency=_CONCURRENT_CALLS
    )
    handles = [
        actor.remote(msgspec.structs.replace(job, worker=number, workers=count)) for number in range(count)
    ]
    workers = [Actor(f"worker {number + 1} of {count}", handle) for number, handle in enumerate(handles)]
    try:
        await asyncio.gather(*(worker.started() for worker in workers))
    except WorkerError:
        await asyncio.gather(*(worker.close() for worker in workers))
        raise
    return workers


async def _reach(address: str) -> None:
    """Raise ``WorkerError`` if nothing listens at the address: Ray itself would retry for minutes."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon or not port.isdecimal():
        return  # a keyword of Ray, such as auto
    try:
        _, writer = await asyncio.wait_for(asyncio.open_connection(host, int(port)), _CONNECT_S)
    except (OSError, TimeoutError) as error:
        raise WorkerError(f"--ray {address}: no cluster there: {str(error) or 'timed out'}") from error
    writer.close()


class Actor:
    """One actor; see :class:`loadgen.fleet.remote.Remote`."""

    def __init__(self, name: str, handle: Any) -> None:
        self.name = name
        self._handle = handle

    async def started(self) -> None:
        """Wait until the actor runs."""
        try:
            host = await asyncio.wait_for(self._done(self._handle.host.remote()), _START_S)
        except TimeoutError:
            free = ray.available_resources().get("CPU", 0)
            text = f"{self.name}: not scheduled within {_START_S:g} s: needs 1 CPU, {free:g} free"
            raise WorkerError(text) from None
        self.name = f"{self.name} on {host}"

    async def clock(self) -> int:
        """See ``Remote``."""
        return await self._done(self._handle.clock.remote())

    async def prepare(self, number: int, level: float) -> None:
        """See ``Remote``."""
        await self._done(self._handle.prepare.remote(number, level))

    async def go(self, start_ns: int) -> Outcome:
        """See ``Remote``."""
        return await self._done(self._handle.go.remote(start_ns))

    async def progress(self) -> Progress:
        """See ``Remote``."""
        return await self._done(self._handle.progress.remote())

    async def interrupt(self) -> None:
        """See ``Remote``."""
        await self._done(self._handle.interrupt.remote())

    async def close(self) -> None:
        """Kill the actor."""
        ray.kill(self._handle)

    async def _done(self, call: Awaitable[_T]) -> _T:
        try:
            return await call
        except RayError as error:
            reason = str(error).strip().splitlines()
            raise WorkerError(f"{self.name}: {reason[-1] if reason else type(error).__name__}") from error
