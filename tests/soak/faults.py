"""One fault a second, by a seeded plan: of a backend, of a process, of the settings."""

import asyncio
import os
import random
import signal
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from tests.e2e.serving import Serving
from tests.soak.backend import SoakBackend

_ANSWERS = 6  # that a fault of answers befalls
_AWAY_SECONDS = 1.6
_KILL_EVERY = 20  # seconds


def children(pid: int) -> list[int]:
    """Return the processes of a supervisor: the meter and the workers, in order of their start."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def name_of(pid: int) -> str:
    """Return the name of a process."""
    return Path(f"/proc/{pid}/comm").read_text()


class Faults:
    """``done`` counts what was done. ``spared`` is never killed; ``reload`` takes a number of backends."""

    def __init__(
        self, backends: Sequence[SoakBackend], proxy: Serving, spared: int, reload: Callable[[int], None]
    ) -> None:
        self._backends = backends
        self._proxy = proxy
        self._spared = spared
        self._reload = reload
        self._rng = random.Random(1)
        self._later: set[asyncio.Task[None]] = set()
        self.done: Counter[str] = Counter()

    async def run(self, seconds: float) -> None:
        """Cause a fault every second for the given time, then recover."""
        loop = asyncio.get_running_loop()
        start = loop.time()
        for second in range(1, int(seconds)):
            await asyncio.sleep(start + second - loop.time())
            self._one(second)
        await asyncio.gather(*self._later)

    def _one(self, second: int) -> None:
        if second % _KILL_EVERY == 7:
            self._kill("relay")
        elif second % (3 * _KILL_EVERY) == 14:
            self._kill("meter")
        elif second % _KILL_EVERY == 17:
            self._reload(self._rng.randint(2, len(self._backends)))
            self.done["settings reloaded"] += 1
        else:
            self._of_backend(self._rng.choice(self._backends))

    def _kill(self, role: str) -> None:
        victims = [pid for pid in children(self._proxy.process.pid) if pid != self._spared]
        of_role = [pid for pid in victims if role in name_of(pid)]
        if of_role:
            os.kill(of_role[0], signal.SIGKILL)
            self.done[f"{role} killed"] += 1

    def _of_backend(self, backend: SoakBackend) -> None:
        kind = self._rng.choice(
            ["reset", "refused", "stalled", "cut off", "garbage", "error", "reset answer"]
        )
        self.done[kind] += 1
        match kind:
            case "reset":
                backend.reset()
            case "refused":
                self._while(self._refused(backend))
            case "stalled":
                self._while(self._stalled(backend))
            case _:
                fault = {"cut off": "truncated", "reset answer": "reset"}.get(kind, kind)
                backend.faults.extend([fault] * _ANSWERS)

    def _while(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._later.add(task)
        task.add_done_callback(self._later.discard)

    async def _refused(self, backend: SoakBackend) -> None:
        if not backend.listens:
            return  # it is away as it is
        await backend.refuse()
        backend.reset()
        await asyncio.sleep(_AWAY_SECONDS)
        await backend.listen()

    async def _stalled(self, backend: SoakBackend) -> None:
        backend.go.clear()
        await asyncio.sleep(_AWAY_SECONDS)
        backend.go.set()
