"""Run the engine in virtual time, as fast as the CPU allows. ``python -m proxy.simulator.virtual PROFILE``.

Another program drives it, with one JSON object per line on stdin and stdout. Seconds are virtual time since
0, joules are true and of all devices together. The first line of output describes the simulation. Then::

    {"arrive": {"id": "a", "at_seconds": 0.5, "prompt_tokens": 256, "output_tokens": 64, "prefix": ["s", 99]}}
    {"until_seconds": 12.5}          run until then, or until requests ended (null: only that)
      -> {"now_seconds": 3.2, "ended": [RESULT, ...], "running": 7, "waiting": 0}
    {"energy_at_seconds": [1, 9.5]}  cumulative, of the device
      -> {"joules": [{"total", "static", "prefill", "decode", "context", "idle"}, ...]}
    {"cancel": "a"}                  it ends now; its result (status 499) comes with the next reply
    {"so_far": true}                 tokens of requests that have not ended
      -> {"so_far": [{"id": "a", "outputs_us": [...]}, ...]}

``prefix``: the first tokens of the prompt are those of every request with this name. A RESULT has ``id,
status`` (200, 400 too long, 499 cancelled, 503 queue full)``, error, at_seconds, scheduled_seconds,
first_seconds, end_seconds, prompt_tokens, cached_tokens, output_tokens, preemptions, outputs_us`` (the first
token's time, then gaps, in integer microseconds) and ``joules``. Exit status 0 at the end of the input, 2 for
a profile or line that cannot be used.
"""

import argparse
import heapq
import math
import sys
from collections.abc import Hashable
from dataclasses import dataclass
from typing import IO, Any, Final

import msgspec
import numpy as np

from proxy.simulator.engine.batching import BLOCK, Engine
from proxy.simulator.engine.energy_trace import Trace
from proxy.simulator.engine.job import Job
from proxy.simulator.profiles.profile import Profile, ProfileError, adjusted, load, names, speculation
from proxy.units import US_PER_SECOND

_MOST_STEPS: Final = 65_536  # in one plan: bounds its arrays


class ProtocolError(ValueError):
    """A request or a line that cannot be used."""


@dataclass(frozen=True, slots=True)
class Result:
    """A request that has ended; seconds since 0, None for a phase that it did not reach."""

    job: Job
    status: int
    error: str | None
    at_seconds: float
    scheduled_seconds: float | None
    end_seconds: float
    outputs: "np.typing.NDArray[np.float64]"  # when each token was made

    @property
    def first_seconds(self) -> float | None:
        """Time of its first token."""
        return float(self.outputs[0]) if len(self.outputs) else None


class VirtualEngine:
    """An engine in virtual time: call ``arrive``, then ``run``. Pure."""

    def __init__(self, profile: Profile) -> None:
        self.engine = Engine(profile)
        self.trace = Trace()
        self._idle_watts = profile.idle_watts
        self._arrivals: list[tuple[float, int, Job]] = []
        self._number = 0
        self._at: dict[str, tuple[float, Job]] = {}
        self._refused: list[Result] = []

    @property
    def now(self) -> float:
        """Virtual time, seconds since 0."""
        return self.trace.now

    @property
    def pending(self) -> int:
        """Number of requests that have not arrived yet."""
        return len(self._arrivals)

    def arrive(self, job: Job, at: float) -> None:
        """Add a job that arrives at ``at``, not before ``now``; raises :class:`ProtocolError`."""
        if job.name in self._at:
            raise ProtocolError(f"id {job.name!r} is in use")
        if not at >= self.now:
            raise ProtocolError(f"id {job.name!r}: at_seconds {at} lies before now, {self.now}")
        self._at[job.name] = (at, job)
        heapq.heappush(self._arrivals, (at, self._number, job))
        self._number += 1

    def cancel(self, name: str) -> None:
        """Remove a job now; an unknown one is ignored."""
        if name in self._at:
            _, job = self._at[name]
            self._arrivals = [item for item in self._arrivals if item[2] is not job]
            heapq.heapify(self._arrivals)
            self.engine.cancel(job)
            self._refused.append(self._result(job, 499, "cancelled"))

    def so_far(self) -> dict[str, "np.typing.NDArray[np.float64]"]:
        """Return the times of the tokens of each request that has some and has not ended."""
        found = {}
        for name, (_, job) in self._at.items():
            runs = list(job.runs)
            if job.joined is not None:  # the range it is in
                runs[-1] = runs[-1][0], self.engine.step
            if runs:
                found[name] = self.trace.outputs(runs)
        return found

    def run(self, until: float | None) -> list[Result]:
        """Run until a time or until jobs end; with None, until jobs end or there are no jobs.

        A step that spans the time is finished first, so that ``now`` may be a step later. Arrivals during a
        step take effect at its end.
        """
        end = math.inf if until is None else until
        while self.now < end or self._refused:
            self._admit()
            if self._refused:
                ended, self._refused = self._refused, []
                return ended
            coming = self._arrivals[0][0] if self._arrivals else math.inf
            if self.engine.idle:
                if (wake := min(coming, end)) == math.inf:
                    return []
                self.trace.rest(wake, self._idle_watts, self.engine.totals)
            elif ended := self._advance(min(coming, end)):
                return ended
        return []

    def _advance(self, until: float) -> list[Result]:
        """Run steps up to the first that ends at ``until`` or later; return the results of ended jobs."""
        plan = self.engine.plan(_MOST_STEPS)
        if plan is None:
            raise AssertionError("an engine with requests has nothing to do")
        if len(plan.seconds) > 1 and until < math.inf:
            ends = self.now + np.cumsum(plan.seconds)
            plan = plan.first(int(np.searchsorted(ends, until)) + 1)
        done = self.engine.finish(plan).done
        self.trace.ran(plan.seconds, plan.joules, self.engine.totals)
        return [self._result(job, 200, None) for job in done]

    def _admit(self) -> None:
        while self._arrivals and self._arrivals[0][0] <= self.now:
            _, _, job = heapq.heappop(self._arrivals)
            refused = self.engine.refusal(job)
            if refused is None:
                self.engine.submit(job)
            elif refused == "queue":
                self._refused.append(self._result(job, 503, "the engine's queue is full"))
            else:
                self._refused.append(self._result(job, 400, "longer than the model takes"))

    def _result(self, job: Job, status: int, error: str | None) -> Result:
        at, _ = self._at.pop(job.name)
        start = None if job.scheduled is None else self.trace.starts[job.scheduled]
        outputs = self.trace.outputs(job.runs)
        return Result(job, status, error, at, start, max(self.now, at), outputs)


class _Arrive(msgspec.Struct, forbid_unknown_fields=True):
    id: str
    at_seconds: float
    prompt_tokens: int
    output_tokens: int
    prefix: tuple[str, int] | None = None


class _Line(msgspec.Struct, forbid_unknown_fields=True):
    arrive: _Arrive | msgspec.UnsetType = msgspec.UNSET
    until_seconds: float | msgspec.UnsetType | None = msgspec.UNSET
    energy_at_seconds: list[float] | msgspec.UnsetType = msgspec.UNSET
    cancel: str | msgspec.UnsetType = msgspec.UNSET
    so_far: bool | msgspec.UnsetType = msgspec.UNSET


def answer(virtual: VirtualEngine, line: bytes, *, outputs: bool) -> dict[str, Any] | None:
    """Process a line; return the reply, or None if it has none. Raises :class:`ProtocolError`."""
    try:
        given = msgspec.json.decode(line, type=_Line)
    except msgspec.MsgspecError as error:
        raise ProtocolError(str(error)) from error
    if given.arrive is not msgspec.UNSET:
        virtual.arrive(_job(given.arrive), given.arrive.at_seconds)
    elif given.until_seconds is not msgspec.UNSET:
        ended = virtual.run(given.until_seconds)
        engine = virtual.engine
        return {
            "now_seconds": virtual.now,
            "ended": [_shown(result, outputs) for result in ended],
            "running": engine.running,
            "waiting": engine.waiting + virtual.pending,
        }
    elif given.energy_at_seconds is not msgspec.UNSET:
        return {"joules": virtual.trace.joules_at(given.energy_at_seconds)}
    elif given.so_far is not msgspec.UNSET:
        outputs_of = virtual.so_far().items()
        return {"so_far": [{"id": name, "outputs_us": _micro(at)} for name, at in outputs_of]}
    elif given.cancel is not msgspec.UNSET:
        virtual.cancel(given.cancel)
    else:
        needed = "arrive, until_seconds, energy_at_seconds, so_far or cancel"
        raise ProtocolError(f"an object with {needed} is needed")
    return None


def _job(given: _Arrive) -> Job:
    if given.prompt_tokens < 1 or given.output_tokens < 1:
        raise ProtocolError(f"id {given.id!r}: prompt_tokens and output_tokens must be at least 1")
    name, shared = given.prefix or ("", 0)
    blocks = min(shared, given.prompt_tokens) // BLOCK
    chain: tuple[Hashable, ...] = tuple((name, number) for number in range(blocks))
    return Job(given.id, given.prompt_tokens, given.output_tokens, chain)


def _shown(result: Result, outputs: bool) -> dict[str, Any]:
    job, parts = result.job, result.job.joules
    return {
        "id": job.name,
        "status": result.status,
        "error": result.error,
        "at_seconds": result.at_seconds,
        "scheduled_seconds": result.scheduled_seconds,
        "first_seconds": result.first_seconds,
        "end_seconds": result.end_seconds,
        "prompt_tokens": job.prompt_tokens,
        "cached_tokens": job.cached_tokens,
        "output_tokens": job.emitted,
        "preemptions": job.preemptions,
        "outputs_us": _micro(result.outputs) if outputs else None,
        "joules": {
            "total": parts.total,
            "static": parts.static,
            "prefill": parts.prefill,
            "decode": parts.decode,
            "context": parts.context,
        },
    }


def _micro(outputs: "np.typing.NDArray[np.float64]") -> list[int]:
    """Return the time of the first output, then the gaps, in integer microseconds."""
    micro = np.rint(outputs * US_PER_SECOND).astype(np.int64)
    found: list[int] = np.diff(micro, prepend=0).tolist()
    return found


def serve(virtual: VirtualEngine, lines: IO[bytes], out: IO[bytes], *, outputs: bool) -> int:
    """Reply to every line of the input; return the exit status."""
    for number, line in enumerate(lines, start=1):
        try:
            said = answer(virtual, line, outputs=outputs)
        except ProtocolError as error:
            _write(out, {"error": f"line {number}: {error}"})
            return 2
        if said is not None:
            _write(out, said)
    return 0


def _write(out: IO[bytes], value: dict[str, Any]) -> None:
    out.write(msgspec.json.encode(value, enc_hook=float) + b"\n")
    out.flush()


def _about(name: str, profile: Profile) -> dict[str, Any]:
    return {
        "simulated": True,
        "schema": 1,
        "profile": name,
        "model": profile.model,
        "device": profile.device,
        "devices": profile.devices,
        "idle_watts": profile.idle_watts,
        "max_num_seqs": profile.limits.max_num_seqs,
        "kv_tokens": profile.limits.kv_tokens,
    }


def main() -> int:
    """Run the program, see the module's docstring; return its exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m proxy.simulator.virtual",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("profile", nargs="?", help="a TOML file or a name")
    parser.add_argument("--profiles", action="store_true", help="print the names and end")
    parser.add_argument("--max-num-seqs", type=int, help="streams at once, instead of the profile's")
    parser.add_argument("--cap-watts", type=float, help="power cap of all devices together")
    parser.add_argument(
        "--speculate",
        type=speculation,
        metavar="TOKENS,ACCEPTANCE[,DRAFT]",
        help="speculative decoding; DRAFT: what a draft pass costs, over the model's own step",
    )
    parser.add_argument("--no-outputs", action="store_true", help="leave outputs_us out")
    given = parser.parse_args()
    if given.profiles:
        sys.stdout.write("\n".join(names()) + "\n")
        return 0
    if given.profile is None:
        parser.error("the name or file of a profile is needed")
    try:
        profile = adjusted(
            load(given.profile),
            max_num_seqs=given.max_num_seqs,
            cap_watts=given.cap_watts,
            speculation=given.speculate,
        )
        virtual = VirtualEngine(profile)
    except ProfileError as error:
        sys.stderr.write(f"simulator: {error}\n")
        return 2
    out = sys.stdout.buffer
    _write(out, _about(given.profile, profile))
    return serve(virtual, sys.stdin.buffer, out, outputs=not given.no_outputs)


if __name__ == "__main__":
    sys.exit(main())
