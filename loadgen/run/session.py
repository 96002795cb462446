"""The session of one run: preflight, the points of the grid one after the other, energy, verdict."""

import asyncio
import contextlib
import platform
import signal
import uuid
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import msgspec

from loadgen.client.http_client import Client, Target
from loadgen.config.spec import Config, Spec
from loadgen.drive.attack import Attack, Outcome
from loadgen.drive.garbage_collection import no_collections
from loadgen.drive.pacer import Pacer
from loadgen.drive.planning import Inputs, make_workload, plan, read_inputs, request_ids, warm_connections
from loadgen.drive.preflight import find_model, try_one
from loadgen.energy.admin import Admin, AdminError
from loadgen.energy.metering import Server, idle_watts, local_devices, read_clock, read_energy
from loadgen.fleet.leader import Fleet, FleetAttack, fleet
from loadgen.measure.operating_points import best_index, level_of
from loadgen.results.records import INTERRUPTED, EnergyTotals, Knee, Point, Record, Run, Verdict
from loadgen.run.view import View
from loadgen.workload.lengths import Lengths

if TYPE_CHECKING:
    from loadgen.measure.window import Window


# Selects and measures the points of a session. Passed in, since ``loadgen.search`` is above this package.
Search = Callable[["Session", Server], Awaitable[Knee | None]]


@dataclass(slots=True)
class Finished:
    """A run and the records of all its requests."""

    run: Run
    records: list[Record]


@dataclass(slots=True)
class Session:
    """One run in progress.

    ``points`` and ``records`` may have those of an interrupted sweep. ``save`` is called after each point
    but the last one, so that an interrupted sweep can be resumed.
    """

    config: Config
    view: View
    run_id: str = field(default_factory=lambda: uuid.uuid4().hex[:12])
    points: list[Point] = field(default_factory=list)
    records: list[Record] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    interrupted: bool = False
    save: Callable[[Finished], None] | None = None
    _attack: Attack | FleetAttack | None = None
    _interrupt: asyncio.Event = field(default_factory=asyncio.Event)
    inputs: Inputs = field(init=False)
    _fleet: Fleet | None = None

    def __post_init__(self) -> None:
        """Read the input files; raises ``ValueError``. Skipped rows are noted."""
        self.inputs = read_inputs(self.config.spec)
        self.notes.extend(self.inputs.notes)

    async def run(self, search: Search | None = None) -> Finished:
        """Measure the points of the grid, or with ``search`` those that it selects, and return the run.

        Raises ``PreflightError`` before the first point if the run cannot start. SIGINT, SIGTERM and SIGHUP
        end the run early with the points measured so far.
        """
        spec = self.config.spec
        client = Client(Target(spec.url))
        admin: Admin | None = None
        if spec.source != "nvml":
            admin = Admin(spec.admin_url, spec.devices, self.config.admin_token)
        loop = asyncio.get_running_loop()
        # SIGHUP as well: power limits must be restored if the terminal is closed. nohup ignores SIGHUP.
        signals = [signal.SIGINT, signal.SIGTERM]
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
            signals.append(signal.SIGHUP)
        try:
            with local_devices(spec) as local:
                found = await find_model(client, self.config)
                await try_one(client, self.config, found)
                model = found.name
                if found.listed and not found.is_listed:
                    self._note(f"model {model!r} is not listed by {spec.url}, but it accepts requests")
                admin = await self._probe(admin)
                for number in signals:
                    loop.add_signal_handler(number, self.interrupt)
                idle = await idle_watts(admin, local)
                self._fleet = await fleet(self.config, model, self.run_id)
                knee = await self._measure(Server(client, admin, model, idle, local), search)
        finally:
            if self._fleet is not None:
                await self._fleet.close()
            await client.close()
            if admin is not None:
                await admin.close()
            for number in signals:  # last: a second Ctrl-C must not lose the measurements
                loop.remove_signal_handler(number)
        return self.finished(model, knee)

    async def _measure(self, server: Server, search: Search | None) -> Knee | None:
        spec = self.config.spec
        if search is not None:
            return await search(self, server)
        if not spec.power_limits:
            await self._grid(server, None)
            return None
        from loadgen.energy.nvml import power_limits  # noqa: PLC0415  # only with --power-limits

        with power_limits(spec.power_limits) as limits:
            for watts in spec.power_limits:
                if not self.interrupted:
                    limits.set(watts)
                    await self._grid(server, watts)
        return None

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

    def interrupt(self) -> None:
        """End the run now, with the points and requests so far; the signal handler."""
        self.interrupted = True
        self._interrupt.set()
        if self._attack is not None:
            self._attack.interrupt()

    async def _pause(self, seconds: float) -> None:
        """Sleep, at most until an interrupt."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._interrupt.wait(), seconds)

    async def _grid(self, server: Server, power_limit: float | None) -> None:
        spec = self.config.spec
        done = {(level_of(point), point.power_limit_watts) for point in self.points}
        for level in spec.levels:
            if (level, power_limit) in done:
                continue
            if self.points and not self.interrupted:
                await self._pause(spec.cool_down_seconds)
            if self.interrupted:
                return
            with no_collections():
                await self._point(server, len(self.points), level, power_limit)
            # A run that is killed can be resumed from here.
            if self.save is not None and len(self.points) < len(spec.levels) * max(1, len(spec.power_limits)):
                self.save(self.finished(server.model, None, over=False))

    async def _point(self, server: Server, number: int, level: float, power_limit: float | None) -> None:
        spec = self.config.spec
        attack = self._fleet_attack(number, level) or await self._own_attack(server, number, level)
        self.view.point_started(label(spec, level), attack.progress)
        pair, why = await read_clock(server.admin)
        if self.interrupted:  # during the connection setup or the clock reading
            return
        outcome = await attack.run()
        from loadgen.measure.window import steady_window  # noqa: PLC0415  # numpy: not before the first request

        self.interrupted |= outcome.interrupted
        concurrency = int(level) if spec.mode == "concurrency" else None
        window = steady_window(outcome.records, outcome.sending_end_ns, spec.warmup_rule, concurrency)
        records, energy, notes = await read_energy(server, pair, outcome, window)
        interrupted = [INTERRUPTED] if outcome.interrupted else []
        part = MeasuredPoint(
            outcome, records, window, energy, [*interrupted, *outcome.notes, *why, *notes], power_limit
        )
        self.view.point_ended(self.keep(server, level, part))

    def _fleet_attack(self, number: int, level: float) -> FleetAttack | None:
        if self._fleet is None:
            return None
        self._attack = attack = self._fleet.attack(number, level)
        return attack

    async def _own_attack(self, server: Server, number: int, level: float) -> Attack:
        spec = self.config.spec
        lengths, pacer = plan(spec, level, trace=self.inputs.trace)
        with contextlib.suppress(OSError):  # if the server died since, the requests fail with the reason
            await server.client.warm(warm_connections(spec, level))
        return self.attack(server, number, lengths, pacer)

    def attack(self, server: Server, number: int, lengths: Lengths, pacer: Pacer) -> Attack:
        """Return an attack for a pacer; ``interrupt`` ends it."""
        spec = self.config.spec
        self._attack = attack = Attack(
            server.client,
            make_workload(spec, server.model, lengths, number, self.inputs.items, self.inputs.tokenizer),
            pacer,
            number,
            request_ids(self.run_id, number),
            self.config.header_lines(),
            spec.drain_seconds,
            tokenizer=self.inputs.tokenizer,
            timeout_s=spec.request_timeout_seconds,
            silence_s=spec.silence_seconds,
        )
        return attack

    def keep(self, server: Server, level: float, part: "MeasuredPoint") -> Point:
        """Append the summary of a point and its records; return the summary."""
        from loadgen.measure.summary import Measured, summarize  # noqa: PLC0415  # numpy, as above

        spec = self.config.spec
        point = summarize(
            Measured(
                concurrency=int(level) if spec.mode == "concurrency" else None,
                rate=level if spec.mode == "rate" else None,
                records=part.records,
                window=part.window,
                lags_ns=part.outcome.lags_ns,
                cpu_share=part.outcome.cpu_share,
                capped=part.outcome.capped,
                energy=part.energy,
                idle_watts=server.idle_watts,
                notes=part.notes,
            ),
            spec.objectives,
        )
        point = msgspec.structs.replace(point, power_limit_watts=part.power_limit)
        self.records.extend(part.records)
        self.points.append(point)
        return point

    def finished(self, model: str, knee: Knee | None, *, over: bool = True) -> Finished:
        """Return the run as of now; one that is not ``over`` is marked as interrupted and can be resumed."""
        spec = msgspec.structs.replace(self.config.spec, model=model)
        run = Run(
            run_id=self.run_id,
            spec=msgspec.to_builtins(spec),
            seed=spec.seed,
            versions=versions(),
            verdict=verdict(spec, self.points, knee, interrupted=self.interrupted or not over),
            best=best_index(self.points, knee),
            points=list(self.points),  # a copy: more may follow
            notes=list(self.notes),
            knee=knee,
        )
        return Finished(run, list(self.records))


@dataclass(frozen=True, slots=True)
class MeasuredPoint:
    """The outcome of a point, with joules joined to its records."""

    outcome: Outcome
    records: list[Record]
    window: "Window"
    energy: EnergyTotals | None
    notes: list[str]
    power_limit: float | None = None


def label(spec: Spec, level: float) -> str:
    """Return the label of a point in messages."""
    return f"{level:g} req/s" if spec.mode == "rate" else f"{level:g} at once"


def verdict(spec: Spec, points: Sequence[Point], knee: Knee | None, *, interrupted: bool) -> Verdict:
    """Return the verdict; a sweep passes if any of its points does, a search if it found a load."""
    if interrupted:
        return "interrupted"
    if best_index(points, knee) is not None and (spec.slo or all(p.failed == 0 for p in points)):
        return "pass"
    if points and all(p.generator_bound for p in points):
        return "generator-bound"
    return "generator-bound" if points and points[-1].generator_bound else "fail"


def versions() -> dict[str, str]:
    """Return the versions that the numbers depend on."""
    from importlib import metadata  # noqa: PLC0415  # not before the first request

    names = ("jouleproxy", "uvloop", "httptools", "msgspec", "numpy")
    found = {name: metadata.version(name) for name in names}
    return found | {"python": platform.python_version(), "system": platform.system()}
