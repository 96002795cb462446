"""Joules of a point from the proxy's accounts. Pure: no clock is read.

The accounts cover windows of the *proxy's* clock. A local duration may be added to a reading of that clock,
since durations are the same on every host; readings of two clocks are never subtracted.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec

from loadgen.results.records import EnergyTotals, Record
from proxy.schema import DeviceAccount, RequestEnergy, sum_parts
from proxy.units import NS_PER_SECOND

PARTS = ("static", "prefill", "decode", "context", "unseparated")
_TOLERANCE = 1e-6  # relative, for sums of floating-point numbers


@dataclass(frozen=True, slots=True)
class ClockPair:
    """A reading of the proxy's clock, and the local time in the middle of that request."""

    proxy_ns: int
    local_ns: int

    def proxy_at(self, local_ns: int) -> int:
        """Convert a local time to the proxy's clock: its reading plus a local duration."""
        return self.proxy_ns + local_ns - self.local_ns


class _Window(msgspec.Struct):
    devices: list[DeviceAccount]


def decode_window(data: bytes) -> list[DeviceAccount]:
    """Decode the body of ``/energy/window``: a list, or an object with ``devices``."""
    if data.lstrip().startswith(b"["):
        return msgspec.json.decode(data, type=list[DeviceAccount])
    return msgspec.json.decode(data, type=_Window).devices


class _Requests(msgspec.Struct):
    requests: list[RequestEnergy]


def decode_requests(data: bytes) -> list[RequestEnergy]:
    """Decode the body of ``/energy/requests``: a list, or an object with ``requests``."""
    if data.lstrip().startswith(b"["):
        return msgspec.json.decode(data, type=list[RequestEnergy])
    return msgspec.json.decode(data, type=_Requests).requests


class _Clock(msgspec.Struct):
    now_ns: int | None = None
    monotonic_ns: int | None = None


def decode_clock(data: bytes) -> int:
    """Decode the nanoseconds of ``/energy/clock``; raises ``ValueError`` if it has none."""
    found = msgspec.json.decode(data, type=_Clock)
    if found.now_ns is not None:
        return found.now_ns
    if found.monotonic_ns is None:
        raise ValueError("the response has neither now_ns nor monotonic_ns")
    return found.monotonic_ns


def join(records: Sequence[Record], energies: Sequence[RequestEnergy]) -> tuple[list[Record], list[str]]:
    """Return the records with the joules of the proxy's record of the same id, and notes about the rest."""
    by_id: Mapping[str, RequestEnergy] = {energy.request_id: energy for energy in energies}
    joined = [_with_energy(record, by_id.get(record.id)) for record in records]
    missing = sum(r.sent_ns is not None and r.id not in by_id for r in records)
    open_ = sum(not energy.final for energy in energies)
    notes = []
    if missing:
        notes.append(f"{missing} of {len(records)} requests have no record at the proxy")
    if open_:
        notes.append(f"{open_} records of the proxy are not final")
    return joined, notes


def _with_energy(record: Record, energy: RequestEnergy | None) -> Record:
    if energy is None:
        return record
    return msgspec.structs.replace(
        record,
        joules=energy.joules,
        parts=energy.parts,
        unknown=energy.unknown,
        output_tokens=record.output_tokens if record.output_tokens is not None else energy.output_tokens,
    )


def totals(accounts: Sequence[DeviceAccount], records: Sequence[Record]) -> EnergyTotals | str:
    """Return the energy of a window, split into parts that sum to it, or the reason why it is unknown.

    The accounts contain the joules of requests, idle and unattributed; those of requests are split in
    proportion to the parts of the joined records. Without such records the parts are None, with a note.
    """
    if not accounts:
        return "the proxy reports no devices"
    gaps = [f"{a.device}: {gap.reason}" for a in accounts for gap in a.gaps]
    if gaps:
        return "energy unknown in a part of the window: " + gaps[0]
    spans = [a.end_ns - a.start_ns for a in accounts if a.end_ns and a.start_ns is not None]
    if not spans or max(spans) <= 0:
        return "the proxy's window is empty"
    joules = sum(a.measured_joules for a in accounts)
    open_joules = sum(a.open_joules for a in accounts)
    idle = sum(a.idle_joules for a in accounts)
    lost = sum(a.unattributed_joules for a in accounts)
    requests = sum(a.requests_joules for a in accounts)
    notes = []
    if abs(requests + idle + lost - joules) > _TOLERANCE * max(joules, 1.0):
        off = requests + idle + lost - joules
        notes.append(f"the proxy's accounts do not conserve energy: off by {off:.6g} J")
    if open_joules > _TOLERANCE * max(joules, 1.0):
        notes.append(f"{open_joules:.4g} J of the window are measured but not yet attributed")
    parts, split_notes = _split(requests, records)
    parts |= {"idle": (parts.pop("idle_named") or 0.0) + idle, "unattributed": lost + open_joules}
    return EnergyTotals(
        joules=joules + open_joules,
        seconds=max(spans) / NS_PER_SECOND,
        source=", ".join(sorted({a.source or "unnamed source" for a in accounts})),
        parts=parts,
        notes=(*notes, *split_notes),
    )


def _split(requests: float, records: Sequence[Record]) -> tuple[dict[str, float | None], tuple[str, ...]]:
    """Split ``requests`` joules in proportion to the parts of the records; return parts and notes."""
    found = sum_parts(record.parts for record in records if record.parts is not None)
    sums: dict[str, float | None] = {name: getattr(found, name) for name in PARTS} if found else {}
    sums["idle_named"] = found.idle if found else 0.0
    total = sum(value or 0.0 for value in sums.values())
    if total <= 0:
        empty: dict[str, float | None] = dict.fromkeys((*PARTS, "idle_named"))
        return empty, ("the proxy has no parts for these requests",) if requests > 0 else ()
    scale = requests / total
    return {name: None if value is None else scale * value for name, value in sums.items()}, ()


def conservation_note(accounts: Sequence[DeviceAccount], records: Sequence[Record]) -> str | None:
    """Return a note if the joined records differ by more than 1 % from the accounts' joules of requests.

    The reason is other clients of the proxy, or records that are not final. ``accounts`` cover the whole
    point.
    """
    given = sum(a.requests_joules for a in accounts)
    joined = sum(r.joules for r in records if r.joules is not None)
    if given <= 0 or abs(given - joined) <= 0.01 * given:
        return None
    return (
        f"records sum to {joined:.4g} J, the accounts attribute {given:.4g} J to requests:"
        " other clients use the proxy, or records are missing"
    )
