"""The composition of a run: preflight, points one after the other, energy joined, verdict."""

import asyncio
import contextlib
import gc
import platform
import signal
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from importlib import metadata
from pathlib import Path

import msgspec

from loadgen.admin import Admin, AdminError
from loadgen.arrivals import Trace, make_arrivals
from loadgen.attack import Attack, Outcome, Progress
from loadgen.client import Client, Target
from loadgen.config import Config, Spec
from loadgen.datasets import Item, read_dataset
from loadgen.energy import ClockPair, conservation_note, join, totals
from loadgen.lengths import Lengths, parse_length
from loadgen.pacer import Capped, ClosedLoop, OpenLoop, Pacer, duration_ns
from loadgen.preflight import find_model, try_one
from loadgen.records import EnergyTotals, Knee, Point, Record, Run, Verdict
from loadgen.summary import Measured, summarize
from loadgen.sweep import best_index
from loadgen.traces import read_trace
from loadgen.vision import parse_size
from loadgen.window import Window, steady_window
from loadgen.workload import Style, Workload

_WARM_CONNECTIONS = 256
_IDLE_PROBE_S = 1.0
_SESSIONS = 32


class View:
    """What a run tells while it goes on; the base tells nothing."""

    def note(self, text: str) -> None:
        """Something worth a line."""

    def line(self, text: str) -> None:
        """How a search gets on."""

    def watch(self, label: str, progress: Progress) -> None:
        """A probe of a search begins; ``progress`` may be read until it ends."""

    def point_started(self, label: str, progress: Progress) -> None:
        """A point begins; ``progress`` may be read until it ends."""

    def point_ended(self, point: Point) -> None:
        """A point is summarised."""


@dataclass(slots=True)
class Finished:
    """A run and all its requests."""

    run: Run
    records: list[Record]


@dataclass(frozen=True, slots=True)
class Server:
    """What the points of a run are measured against."""

    client: Client
    admin: Admin | None
    model: str
    idle_watts: float | None


@dataclass(slots=True)
class Session:
    """One run under way."""

    config: Config
    view: View
    run_id: str = field(default_factory=lambda: uuid.uuid4().hex[:12])
    points: list[Point] = field(default_factory=list)
    records: list[Record] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    interrupted: bool = False
    _attack: Attack | None = None
    _items: Sequence[Item] = ()

    async def run(self) -> Finished:
        """All points; raises ``PreflightError`` before the first where it cannot start."""
        spec = self.config.spec
        self._items = read_dataset(Path(spec.dataset)) if spec.dataset else ()
        client = Client(Target(spec.url))
        admin: Admin | None = Admin(spec.admin_url)
        loop = asyncio.get_running_loop()
        knee = None
        try:
            model = await find_model(client, self.config)
            await try_one(client, self.config, model)
            admin = await self._probe(admin)
            loop.add_signal_handler(signal.SIGINT, self._interrupt)
            server = Server(client, admin, model, await self._idle_watts(admin))
            if spec.search:
                from loadgen.searching import search_knee  # noqa: PLC0415  # it drives this very session

                knee = await search_knee(self, server)
            else:
                await self._grid(server)
        finally:
            loop.remove_signal_handler(signal.SIGINT)
            await client.close()
            if admin is not None:
                await admin.close()
        return self._finished(model, knee)

    async def _probe(self, admin: Admin | None) -> Admin | None:
        if admin is None:
            return None
        try:
            await admin.clock()
        except AdminError as error:
            self._note(f"energy not measured: {error}")
            await admin.close()
            return None
        return admin

    def _note(self, text: str) -> None:
        self.notes.append(text)
        self.view.note(text)

    def _interrupt(self) -> None:
        self.interrupted = True
        if self._attack is not None:
            self._attack.interrupt()

    async def _idle_watts(self, admin: Admin | None) -> float | None:
        """Power before the first request: the floor of the curve."""
        if admin is None:
            return None
        try:
            pair = await admin.clock()
            await asyncio.sleep(_IDLE_PROBE_S)
            now = await admin.clock()
            found = totals(await admin.window(pair.proxy_ns, now.proxy_ns), [])
        except AdminError:
            return None
        return None if isinstance(found, str) else found.joules / found.seconds

    async def _grid(self, server: Server) -> None:
        for number, level in enumerate(self.config.spec.levels):
            if self.interrupted:
                return
            with no_collections():
                await self._point(server, number, level)

    async def _point(self, server: Server, number: int, level: float) -> None:
        spec = self.config.spec
        lengths, pacer = plan(spec, level)
        attack = self.attack(server, number, lengths, pacer)
        warm = level if spec.mode == "concurrency" else max(4.0, level)
        await server.client.warm(min(int(warm), _WARM_CONNECTIONS))
        self.view.point_started(label(spec, level), attack.progress)
        pair, why = await read_clock(server.admin)
        outcome = await attack.run()
        concurrency = int(level) if spec.mode == "concurrency" else None
        window = steady_window(outcome.records, outcome.sending_end_ns, spec.warmup_rule, concurrency)
        records, energy, notes = await read_energy(server.admin, pair, outcome, window)
        part = Part(outcome, records, window, energy, [*why, *notes])
        self.view.point_ended(self.keep(server, attack, level, part))

    def attack(self, server: Server, number: int, lengths: Lengths, pacer: Pacer) -> Attack:
        """An attack that a Ctrl-C ends."""
        spec = self.config.spec
        self._attack = Attack(
            server.client,
            make_workload(spec, server.model, lengths, number, self._items),
            pacer,
            number,
            f"lg-{self.run_id}-{number}",
            self.config.header_lines(),
            spec.drain_seconds,
        )
        return self._attack

    def keep(self, server: Server, attack: Attack, level: float, part: "Part") -> Point:
        """Summarise a point and keep it."""
        spec = self.config.spec
        point = summarize(
            Measured(
                concurrency=int(level) if spec.mode == "concurrency" else None,
                rate=level if spec.mode == "rate" else None,
                records=part.records,
                window=part.window,
                lags_ns=part.outcome.lags_ns,
                cpu_share=part.outcome.cpu_share,
                capped=attack.pacer.bound if isinstance(attack.pacer, Capped) else 0,
                energy=part.energy,
                idle_watts=server.idle_watts,
                notes=part.notes,
            ),
            spec.objectives,
        )
        self.records.extend(part.records)
        self.points.append(point)
        return point

    def _finished(self, model: str, knee: Knee | None) -> Finished:
        spec = msgspec.structs.replace(self.config.spec, model=model)
        run = Run(
            run_id=self.run_id,
            spec=msgspec.to_builtins(spec),
            seed=spec.seed,
            versions=versions(),
            verdict=verdict(spec, self.points, knee, interrupted=self.interrupted),
            best=best_index(self.points, knee),
            points=self.points,
            notes=self.notes,
            knee=knee,
        )
        return Finished(run, self.records)


@dataclass(frozen=True, slots=True)
class Part:
    """A point's attack and what was made of it."""

    outcome: Outcome
    records: list[Record]
    window: Window
    energy: EnergyTotals | None
    notes: list[str]


@contextlib.contextmanager
def no_collections() -> Iterator[None]:
    """A garbage collection of millions of records would be a pause in every stream."""
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.unfreeze()


async def read_clock(admin: Admin | None) -> tuple[ClockPair | None, list[str]]:
    """The proxy's clock beside ours, or why there is none."""
    if admin is None:
        return None, []
    try:
        return await admin.clock(), []
    except AdminError as error:
        return None, [f"energy not measured: {error}"]


async def read_energy(
    admin: Admin | None, pair: ClockPair | None, outcome: Outcome, window: Window, *, alone: bool = True
) -> tuple[list[Record], EnergyTotals | None, list[str]]:
    """Records with their joules, the window's totals, and what is to be said of them.

    ``alone``: no other point's requests were under way, so that the accounts must be these records'.
    """
    if admin is None or pair is None or not outcome.records:
        return outcome.records, None, []
    start = pair.proxy_at(outcome.start_ns)
    try:
        found = await admin.requests([r.id for r in outcome.records if r.sent_ns is not None])
        records, notes = join(outcome.records, found)
        inside = await admin.window(start + window.start_ns, start + window.end_ns)
        whole = await admin.window(start, start + outcome.end_ns)
    except AdminError as error:
        return outcome.records, None, [f"energy not measured: {error}"]
    energy = totals(inside, [r for r in records if window.holds(r.end_ns)])
    if isinstance(energy, str):
        return records, None, [*notes, f"energy not known: {energy}"]
    off = conservation_note(whole, records) if alone else None
    return records, energy, [*notes, *energy.notes, *([off] if off else [])]


def plan(spec: Spec, level: float) -> tuple[Lengths, Pacer]:
    """Lengths and pacer of one level."""
    lengths = Lengths(parse_length(spec.input, "--input"), parse_length(spec.output, "--output"))
    end = duration_ns(spec.duration_seconds)
    if spec.mode == "concurrency":
        return lengths, ClosedLoop(int(level), end, spec.requests)
    if spec.arrivals.startswith("trace:"):
        trace = read_trace(Path(spec.arrivals.removeprefix("trace:")), level)
        lengths = replace(lengths, pairs=trace.pairs)
        pacer: Pacer = OpenLoop(Trace(trace.times_ns), end, spec.requests)
    else:
        arrivals = make_arrivals(spec.arrivals, level, spec.seed, spec.duration_seconds)
        pacer = OpenLoop(arrivals, end, spec.requests)
    return lengths, Capped(pacer, spec.max_in_flight) if spec.max_in_flight else pacer


def make_workload(spec: Spec, model: str, lengths: Lengths, number: int, items: Sequence[Item]) -> Workload:
    """Bodies of one point: points differ in their prompts, or prefix caches would favour later ones."""
    return Workload(
        spec.endpoint, model, lengths,
        seed=spec.seed * 1_000_003 + number, items=items, style=style(spec),
    )  # fmt: skip


def style(spec: Spec) -> Style:
    """What the requests are like."""
    return Style(
        stream=spec.stream,
        exact=spec.exact_output,
        prefix_share=spec.prefix_share,
        turns=spec.turns,
        sessions=int(min(spec.levels)) if spec.mode == "concurrency" else _SESSIONS,
        picture=parse_size(spec.picture, "--picture") if spec.picture else None,
    )


def label(spec: Spec, level: float) -> str:
    """A point's name for people."""
    return f"{level:g} req/s" if spec.mode == "rate" else f"{level:g} at once"


def verdict(spec: Spec, points: Sequence[Point], knee: Knee | None, *, interrupted: bool) -> Verdict:
    """One word for the run; a sweep passes if any of its points does, a search if it found a load."""
    if interrupted:
        return "interrupted"
    if best_index(points, knee) is not None and (spec.slo or all(p.failed == 0 for p in points)):
        return "pass"
    if points and all(p.generator_bound for p in points):
        return "generator-bound"
    return "generator-bound" if points and points[-1].generator_bound else "fail"


def versions() -> dict[str, str]:
    """What the numbers depend on."""
    names = ("jouleproxy", "uvloop", "httptools", "msgspec", "numpy")
    found = {name: metadata.version(name) for name in names}
    return found | {"python": platform.python_version(), "system": platform.system()}
