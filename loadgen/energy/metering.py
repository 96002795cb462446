"""Energy of the points of a run, from the proxy's admin port or from local devices."""

import asyncio
import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from loadgen.client.http_client import Client
from loadgen.config.spec import Spec
from loadgen.drive.attack import Outcome
from loadgen.drive.preflight import PreflightError
from loadgen.energy.accounts import ClockPair, conservation_note, join, totals
from loadgen.energy.admin import Admin, AdminError
from loadgen.results.records import EnergyTotals, Record

if TYPE_CHECKING:
    from loadgen.energy.nvml import LocalDevices
    from loadgen.measure.window import Window

_IDLE_S = 1.0  # duration of the idle measurement
_EDGES_S = 0.3  # before and after it: counters change every 20 to 100 ms


@dataclass(frozen=True, slots=True)
class Server:
    """The server under test, with its sources of energy; idle power in watts, None if unknown."""

    client: Client
    admin: Admin | None
    model: str
    idle_watts: float | None
    local: "LocalDevices | None" = None


async def read_clock(admin: Admin | None) -> tuple[ClockPair | None, list[str]]:
    """Return a reading of the proxy's clock paired with the local one, and notes if that fails."""
    if admin is None:
        return None, []
    try:
        return await admin.clock(), []
    except AdminError as error:
        return None, [f"energy not measured: {error}"]


async def read_energy(
    server: Server, pair: ClockPair | None, outcome: Outcome, window: "Window", *, alone: bool = True
) -> tuple[list[Record], EnergyTotals | None, list[str]]:
    """Return the records with joules, the energy of the window (None if unknown), and notes.

    ``alone``: no requests of another point were in flight, so that accounts and records must agree.
    """
    if server.local is not None:
        return await _local_energy(server.local, outcome, window)
    admin = server.admin
    if admin is None or pair is None or not outcome.records:
        return outcome.records, None, []
    start = pair.proxy_at(outcome.start_ns)
    try:
        found = await admin.requests([r.id for r in outcome.records if r.sent_ns is not None])
        records, notes = join(outcome.records, found)
        inside = await admin.window(start + window.start_ns, start + window.end_ns)
        complete = await admin.window(start, start + outcome.end_ns)
    except AdminError as error:
        return outcome.records, None, [f"energy not measured: {error}"]
    energy = totals(inside, [r for r in records if window.holds(r.end_ns)])
    if isinstance(energy, str):
        return records, None, [*notes, f"energy unknown: {energy}"]
    mismatch = conservation_note(complete, records) if alone else None
    return records, energy, [*notes, *energy.notes, *([mismatch] if mismatch else [])]


async def _local_energy(
    local: "LocalDevices", outcome: Outcome, window: "Window"
) -> tuple[list[Record], EnergyTotals | None, list[str]]:
    start, end = (outcome.start_ns + edge for edge in (window.start_ns, window.end_ns))
    for seconds in local.waiting(end):
        await asyncio.sleep(seconds)
    energy = local.between(start, end)
    if isinstance(energy, str):
        return outcome.records, None, [f"energy unknown: {energy}"]
    return outcome.records, energy, []


@contextlib.contextmanager
def local_devices(spec: Spec) -> "Iterator[LocalDevices | None]":
    """Sample the GPUs of this machine with ``--source nvml``, else yield None; raises ``PreflightError``."""
    if spec.source != "nvml":
        yield None
        return
    from loadgen.energy.nvml import LocalDeviceError, LocalDevices  # noqa: PLC0415  # only with --source nvml

    try:
        with LocalDevices() as local:
            yield local
    except LocalDeviceError as error:
        raise PreflightError(str(error)) from error


async def idle_watts(admin: Admin | None, local: "LocalDevices | None") -> float | None:
    """Measure idle power before the first request, in watts; None if unknown."""
    if local is not None:
        await asyncio.sleep(_EDGES_S)
        start = time.monotonic_ns()
        await asyncio.sleep(_IDLE_S)
        end = time.monotonic_ns()
        await asyncio.sleep(_EDGES_S)
        found = local.between(start, end)
        return None if isinstance(found, str) else found.joules / found.seconds
    if admin is None:
        return None
    try:
        pair = await admin.clock()
        await asyncio.sleep(_IDLE_S)
        now = await admin.clock()
        found = totals(await admin.window(pair.proxy_ns, now.proxy_ns), [])
    except AdminError:
        return None
    return None if isinstance(found, str) else found.joules / found.seconds
