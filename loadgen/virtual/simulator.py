"""The simulator as a subprocess with a protocol of JSON lines: ``python -m proxy.simulator.virtual``."""

import subprocess
import sys
from collections.abc import Callable
from typing import Any, Self

import msgspec

from loadgen.drive.preflight import PreflightError
from proxy.units import NS_PER_SECOND, ns_from_seconds


class Result(msgspec.Struct):
    """A request that ended; ``outputs_us`` is the time of the first token, then gaps, microseconds."""

    id: str
    status: int
    end_seconds: float
    error: str | None = None
    prompt_tokens: int | None = None
    output_tokens: int | None = None
    outputs_us: list[int] | None = None
    joules: dict[str, float] = {}


class Underway(msgspec.Struct):
    """The tokens so far of a request in flight; see ``Result``."""

    id: str
    outputs_us: list[int]


class _Hello(msgspec.Struct):
    profile: str
    model: str
    device: str
    idle_watts: float | None = None


class _Answer(msgspec.Struct):
    now_seconds: float | None = None
    ended: list[Result] = []
    joules: list[dict[str, float]] = []
    so_far: list[Underway] = []
    error: str | None = None


class Simulator:
    """Client of one simulator process; a context manager. Raises ``PreflightError`` with its errors."""

    def __init__(self, profile: str) -> None:
        argv = [sys.executable, "-m", "proxy.simulator.virtual", profile]
        pipe = subprocess.PIPE
        # In its own session: Ctrl-C must reach only the load generator, which then saves the points so far.
        self._process = subprocess.Popen(argv, stdin=pipe, stdout=pipe, stderr=pipe, start_new_session=True)
        self._owners: dict[str, Callable[[Result], None]] = {}
        self.now_ns, self.now_seconds = 0, 0.0
        self.hello = msgspec.json.decode(self._line(), type=_Hello)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._process.terminate()
        self._process.communicate()

    def arrive(self, request: dict[str, Any], ended: Callable[[Result], None]) -> None:
        """Announce a request for its ``at_seconds``; ``ended`` is called with its result."""
        self._owners[request["id"]] = ended
        self._send({"arrive": request})

    def go(self, until_ns: int | None) -> None:
        """Advance to a time or one step further, or until requests ended; None: only until requests ended."""
        until = None if until_ns is None else until_ns / NS_PER_SECOND
        answer = self._query({"until_seconds": until})
        if answer.now_seconds is not None:
            self.now_seconds = answer.now_seconds
            self.now_ns = ns_from_seconds(answer.now_seconds)
        for result in answer.ended:
            self._owners.pop(result.id)(result)

    def so_far(self) -> list[Underway]:
        """Return the requests in flight that have tokens."""
        return self._query({"so_far": True}).so_far

    def joules(self, *at_ns: int) -> list[dict[str, float]]:
        """Return cumulative joules by part at past times, nanoseconds."""
        return self._query({"energy_at_seconds": [t / NS_PER_SECOND for t in at_ns]}).joules

    def _send(self, command: dict[str, Any]) -> None:
        if self._process.stdin is not None:
            self._process.stdin.write(msgspec.json.encode(command) + b"\n")

    def _query(self, command: dict[str, Any]) -> _Answer:
        self._send(command)
        if self._process.stdin is not None:
            self._process.stdin.flush()
        answer = msgspec.json.decode(self._line(), type=_Answer)
        if answer.error is not None:
            raise PreflightError(f"--simulate: {answer.error}")
        return answer

    def _line(self) -> bytes:
        line = self._process.stdout.readline() if self._process.stdout else b""
        if line:
            return line
        errors = self._process.communicate()[1].decode().strip().splitlines()
        raise PreflightError(f"--simulate: {errors[-1] if errors else 'the simulator exited'}")
