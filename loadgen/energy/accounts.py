"""Joules of a point from what the proxy reports. Pure: no clock is read, none are subtracted.

The proxy's accounts cover windows of *its* clock. A local duration may be added to a reading of that
clock (durations mean the same on every host); two clocks are never compared.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec

from loadgen.results.records import EnergyTotals, Record
from proxy.schema import DeviceAccount, RequestEnergy, sum_parts
from proxy.units import NS_PER_SECOND

PARTS = ("static", "prefill", "decode", "context", "unseparated")
_TOLERANCE = 1e-6


@dataclass(frozen=True, slots=True)
class ClockPair:
    """The proxy's clock, read while ours said ``local_ns`` (mid-way of the handler)."""

    proxy_ns: int
    local_ns: int

    def proxy_at(self, local_ns: int) -> int:
        """The proxy's stamp of a local one: its reading plus a local duration."""
        return self.proxy_ns + local_ns - self.local_ns


class _Window(msgspec.Struct):
    devices: list[DeviceAccount]


def decode_window(data: bytes) -> list[DeviceAccount]:
    """Accounts from the body of ``/energy/window``: a list, or an object with ``devices``."""
    if data.lstrip().startswith(b"["):
        return msgspec.json.decode(data, type=list[DeviceAccount])
    return msgspec.json.decode(data, type=_Window).devices


class _Requests(msgspec.Struct):
    requests: list[RequestEnergy]


def decode_requests(data: bytes) -> list[RequestEnergy]:
    """Records from the body of ``/energy/requests``: a list, or an object with ``requests``."""
    if data.lstrip().startswith(b"["):
        return msgspec.json.decode(data, type=list[RequestEnergy])
    return msgspec.json.decode(data, type=_Requests).requests


class _Clock(msgspec.Struct):
    now_ns: int | None = None
    monotonic_ns: int | None = None


def decode_clock(data: bytes) -> int:
    """The proxy's nanoseconds from the body of ``/energy/clock``; ``ValueError`` if it has none."""
    found = msgspec.json.decode(data, type=_Clock)
    if found.now_ns is not None:
        return found.now_ns
    if found.monotonic_ns is None:
        raise ValueError("the answer has neither now_ns nor monotonic_ns")
    return found.monotonic_ns


def join(records: Sequence[Record], energies: Sequence[RequestEnergy]) -> tuple[list[Record], list[str]]:
    """Records with the joules of the proxy's record of the same id, and what could not be joined."""
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
    """The energy of a window, split into parts that sum to it; or the reason why it is not known.

    The accounts say how much went to requests, to idle and to nobody; the requests' share is split as
    the joined records of the window are. Parts without records are null and the note says so.
    """
    if not accounts:
        return "the proxy reports no devices"
    gaps = [f"{a.device}: {gap.reason}" for a in accounts for gap in a.gaps]
    if gaps:
        return "energy not known over the whole window: " + gaps[0]
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
    """``requests`` joules in the proportion of the records' parts."""
    found = sum_parts(record.parts for record in records if record.parts is not None)
    sums: dict[str, float | None] = {name: getattr(found, name) for name in PARTS} if found else {}
    sums["idle_named"] = found.idle if found else 0.0
    whole = sum(value or 0.0 for value in sums.values())
    if whole <= 0:
        empty: dict[str, float | None] = dict.fromkeys((*PARTS, "idle_named"))
        return empty, ("the proxy gave no parts for these requests",) if requests > 0 else ()
    scale = requests / whole
    return {name: None if value is None else scale * value for name, value in sums.items()}, ()


def conservation_note(accounts: Sequence[DeviceAccount], records: Sequence[Record]) -> str | None:
    """Whether the joined records sum to what the accounts gave to requests over the whole point.

    None when they agree within 1 %: other clients of the proxy, or records that are not final, show.
    """
    given = sum(a.requests_joules for a in accounts)
    joined = sum(r.joules for r in records if r.joules is not None)
    if given <= 0 or abs(given - joined) <= 0.01 * given:
        return None
    return (
        f"records sum to {joined:.4g} J, the devices gave {given:.4g} J to requests in this time:"
        " other clients use the proxy, or records are missing"
    )
