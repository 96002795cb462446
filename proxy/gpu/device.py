"""The device under measurement: an NVIDIA GPU, or its substitute without one.

Both run steps of an engine, keep a clock and watch the energy counter. ``edges`` are the times at which the
counter was seen to change, with its value: at an edge the counter is exact.
"""

import bisect
import ctypes
import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from time import sleep
from typing import Any, Final, NamedTuple, Protocol

import numpy as np
import pynvml

from proxy.clock import now_ns
from proxy.gpu.composition import Work
from proxy.simulator.gpu.fake_nvml import ENVIRONMENT_KEY, FakeNvml, SimulatedDevice, build
from proxy.truth.machine import Machine
from proxy.units import NS_PER_MS, NS_PER_SECOND, ns_from_seconds, seconds_from_ns

# Interval of polls of the counter; on a GPU a poll costs tens of microseconds of a core (part a measures it).
POLL_NS: Final = 2 * NS_PER_MS
# On the substitute, one in so many steps is really computed: its power comes from a model anyway.
_COMPUTED_EVERY: Final = 25
_END_SECONDS: Final = 5.0
_PHASE_NS: Final = 370_000  # of the updates of the counter: none is at the end of a load
_LOAD_SECONDS: Final = 0.02
LOADS: Final = ("idle", "copy", "matmul")


class Edge(NamedTuple):
    """The counter was first seen at ``mj`` millijoules at ``t_ns``."""

    t_ns: int
    mj: float


class Device(Protocol):
    """A device that runs steps and loads, and whose counter is watched."""

    simulated: bool
    handle: Any  # of NVML

    def now_ns(self) -> int:
        """Return the time of the device's clock."""

    def step(self, works: Sequence[Work], run: Callable[[], object]) -> tuple[int, int]:
        """Run one step of an engine to its end; return start and end."""

    def idle(self, seconds: float) -> None:
        """Do nothing for this long."""

    def load(self, kind: str) -> tuple[int, int]:
        """Run about 20 ms of a known load, one of ``LOADS``; return start and end."""

    def edges(self, start_ns: int, end_ns: int) -> list[Edge]:
        """Return the edges of the counter in a span of time, both ends included."""


class _Counter:
    """Edges of one device's energy counter."""

    def __init__(self, handle: Any) -> None:
        self._handle = handle
        self._edges: list[Edge] = []
        self._last: float | None = None

    def poll(self, t_ns: int) -> None:
        """Read the counter; the first reading is no edge."""
        mj = float(pynvml.nvmlDeviceGetTotalEnergyConsumption(self._handle))
        if self._last is not None and mj != self._last:
            self._edges.append(Edge(t_ns, mj))
        self._last = mj

    def between(self, start_ns: int, end_ns: int) -> list[Edge]:
        """Return the edges in a span of time."""
        first = bisect.bisect_left(self._edges, start_ns, key=lambda edge: edge.t_ns)
        last = bisect.bisect_right(self._edges, end_ns, key=lambda edge: edge.t_ns)
        return self._edges[first:last]


def _handle(uuid: str | None) -> Any:
    """Return NVML's handle of a GPU; NVML's order may differ from CUDA's, so its UUID decides."""
    if uuid is None:
        return pynvml.nvmlDeviceGetHandleByIndex(0)
    return pynvml.nvmlDeviceGetHandleByUUID(uuid)


class CudaDevice:
    """The first GPU that CUDA shows. A thread polls its counter until ``close``."""

    simulated = False

    def __init__(self) -> None:
        """Raise ``pynvml.NVMLError`` without a driver, ``RuntimeError`` without CUDA in torch."""
        from proxy.gpu import model  # noqa: PLC0415 - imports torch

        if not model.has_cuda():
            raise RuntimeError("torch finds no CUDA device")
        self._synchronise, self._burst = model.synchronise, model.Bursts().run
        pynvml.nvmlInit()
        self.handle = _handle(model.uuid())
        self._counter = _Counter(self.handle)
        self._end = threading.Event()
        self._poller = threading.Thread(target=self._poll, name="counter", daemon=True)
        self._poller.start()

    def now_ns(self) -> int:
        """Return the host's monotonic time."""
        return now_ns()

    def step(self, works: Sequence[Work], run: Callable[[], object]) -> tuple[int, int]:
        """Run a step and wait for the GPU."""
        del works  # the GPU itself determines what they cost
        start = now_ns()
        run()
        self._synchronise()
        return start, now_ns()

    def idle(self, seconds: float) -> None:
        """Sleep."""
        sleep(seconds)

    def load(self, kind: str) -> tuple[int, int]:
        """Run a piece of a load and wait for its end."""
        start = now_ns()
        if kind == "idle":
            sleep(_LOAD_SECONDS)
        else:
            self._burst(kind)
            self._synchronise()
        return start, now_ns()

    def edges(self, start_ns: int, end_ns: int) -> list[Edge]:
        """Return the edges that the polling thread saw."""
        return self._counter.between(start_ns, end_ns)

    def close(self) -> None:
        """Stop polling."""
        self._end.set()
        self._poller.join(_END_SECONDS)  # a call of NVML may hang; the thread does not outlive the process

    def _poll(self) -> None:
        while not self._end.wait(seconds_from_ns(POLL_NS)):
            self._counter.poll(now_ns())


class SimulatedGpu:
    """A substitute: the simulated NVML library, in virtual time, with the power of a model of a machine.

    A step takes the time and draws the power that ``machine`` gives for its work; only some steps are
    computed, so that the code under test runs. Virtual time makes the result independent of how busy this
    machine is.
    """

    simulated = True

    def __init__(self, folder: Path, machine: Machine | None = None) -> None:
        """Build and load the library; raise ``FakeNvmlError`` without a C compiler.

        Only one may exist in a process: NVML is loaded once.
        """
        self.machine = machine or Machine()
        self._now_ns = now_ns() // NS_PER_SECOND * NS_PER_SECOND
        library = build(folder / "lib")
        state = folder / "gpu"
        power = SimulatedDevice(idle_watts=self.machine.idle_watts, phase_ns=_PHASE_NS)
        self._writer = FakeNvml(state, [power], self._now_ns)
        os.environ[ENVIRONMENT_KEY] = str(state)
        # pynvml opens the library by its soname: one that is loaded already under that name is found first.
        self._library = ctypes.CDLL(str(library), mode=ctypes.RTLD_GLOBAL)
        self._library.jouleproxy_standin_set_clock.argtypes = [ctypes.c_int64]
        self._set(self._now_ns)
        pynvml.nvmlInit()
        self.handle = pynvml.nvmlDeviceGetHandleByIndex(0)
        self._counter = _Counter(self.handle)
        self._steps = 0

    def now_ns(self) -> int:
        """Return the virtual time."""
        return self._now_ns

    def step(self, works: Sequence[Work], run: Callable[[], object]) -> tuple[int, int]:
        """Let the modelled time of a step pass at its modelled power."""
        if self._steps % _COMPUTED_EVERY == 0:
            run()
        self._steps += 1
        context = float(sum(w.context for w in works))
        tokens = float(sum(w.tokens for w in works))
        seconds = self.machine.length(context, tokens)
        return self.draw(step_joules(self.machine, works) / seconds, seconds)

    def draw(self, watts: float, seconds: float) -> tuple[int, int]:
        """Draw a constant power for a time; return its start and end."""
        start = self._now_ns
        end = start + ns_from_seconds(seconds)
        self._writer.append(0, start, watts)
        self._writer.append(0, end, self.machine.idle_watts)
        self._advance(end)
        return start, end

    def idle(self, seconds: float) -> None:
        """Let time pass at idle power."""
        self._advance(self._now_ns + ns_from_seconds(seconds))

    def load(self, kind: str) -> tuple[int, int]:
        """Draw the power of a load by the model of the machine."""
        machine = self.machine
        watts = {
            "idle": machine.idle_watts,
            "copy": machine.watts + machine.memory_watts,
            "matmul": machine.watts + machine.compute_watts,
        }
        return self.draw(watts[kind], _LOAD_SECONDS)

    def edges(self, start_ns: int, end_ns: int) -> list[Edge]:
        """Return the edges that were seen."""
        return self._counter.between(start_ns, end_ns)

    def close(self) -> None:
        """Remove the shared file and return to the real clock."""
        self._set(0)
        pynvml.nvmlShutdown()
        self._writer.close()

    def _advance(self, until: int) -> None:
        while self._now_ns < until:
            self._now_ns = min(self._now_ns + POLL_NS, until)
            self._set(self._now_ns)
            self._counter.poll(self._now_ns)

    def _set(self, t_ns: int) -> None:
        self._library.jouleproxy_standin_set_clock(t_ns)


class PacedGpu:
    """A substitute in real time, for a server: writes the power of its steps, and lets them last.

    Another process reads the counter, through the simulated NVML library and the file ``state``.
    """

    simulated = True
    handle = None

    def __init__(self, state: Path, machine: Machine | None = None) -> None:
        self.machine = machine or Machine()
        self._free_ns = now_ns()
        self._writer = FakeNvml(state, [SimulatedDevice(idle_watts=self.machine.idle_watts)], self._free_ns)
        self._writer.processes(0, [os.getpid()])

    def now_ns(self) -> int:
        """Return the host's monotonic time."""
        return now_ns()

    def step(self, works: Sequence[Work], run: Callable[[], object]) -> tuple[int, int]:
        """Compute a step, and return when its modelled time is over."""
        context = float(sum(w.context for w in works))
        tokens = float(sum(w.tokens for w in works))
        seconds = self.machine.length(context, tokens)
        start = max(now_ns(), self._free_ns)
        self._free_ns = start + ns_from_seconds(seconds)
        self._writer.append(0, start, step_joules(self.machine, works) / seconds)
        self._writer.append(0, self._free_ns, self.machine.idle_watts)
        run()
        sleep(max(0.0, seconds_from_ns(self._free_ns - now_ns())))
        return start, self._free_ns

    def idle(self, seconds: float) -> None:
        """Sleep."""
        sleep(seconds)

    def load(self, kind: str) -> tuple[int, int]:
        """Raise: a server runs no other load."""
        raise NotImplementedError(kind)

    def edges(self, start_ns: int, end_ns: int) -> list[Edge]:
        """Return none: another process reads the counter."""
        del start_ns, end_ns
        return []


def step_joules(machine: Machine, works: Sequence[Work]) -> float:
    """Return the joules that the model of a machine gives a step."""
    context = np.array([machine.context_s * sum(w.context for w in works)])
    tokens = np.array([float(sum(w.tokens for w in works))])
    return float(machine.joules(context, machine.token_s * tokens, tokens, 1.0)[0])


def per_second(edges: Sequence[Edge]) -> float | None:
    """Return the mean power between the first and the last edge, in watts; None with fewer than two."""
    if len(edges) < 2:
        return None
    span = (edges[-1].t_ns - edges[0].t_ns) / NS_PER_SECOND
    return (edges[-1].mj - edges[0].mj) / 1e3 / span
