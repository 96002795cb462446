"""``jouleproxy devices``: list the devices of this machine, how they are read, and the rejected readings."""

import os
import sys
from collections.abc import Mapping
from dataclasses import replace
from time import sleep
from typing import IO, Final

import msgspec

from proxy.clock import now_ns
from proxy.config import MeterConfig
from proxy.energy.choice import Choice, OpenedSource, choose
from proxy.energy.sampling.probe import probe
from proxy.energy.source import EdgeSource, Found
from proxy.units import MS_PER_SECOND, seconds_from_ns

SLOW_CALL_SECONDS: Final = 0.005  # slower calls cannot locate the updates of a counter


def run(
    config: MeterConfig, out: IO[str] = sys.stdout, *, as_json: bool, environ: Mapping[str, str] = os.environ
) -> int:
    """Print the devices found; return exit status 0, also if nothing can be measured.

    Args:
        config: The settings of sources and devices.
        out: Receives the output.
        as_json: Print one JSON object instead of text.
        environ: Environment variables.

    Raises:
        ConfigError: for a source requested by name that cannot be opened.
    """
    choice = choose(config, environ)
    try:
        choice = replace(choice, opened=tuple(measured(opened) for opened in choice.opened))
        if as_json:
            out.write(msgspec.json.encode(as_object(choice)).decode() + "\n")
        else:
            out.write("\n".join(as_lines(choice)) + "\n")
    finally:
        choice.close()
    return 0


def measured(opened: OpenedSource) -> OpenedSource:
    """Measure update period and call latency of a source with counters, which takes half a second."""
    source = opened.source
    if not isinstance(source, EdgeSource):
        return opened
    probes = probe(source, source.counters(), now_ns, _wait)
    found = []
    for one in opened.found:
        seen = probes.get(one.device.id)
        tracker = seen.tracker() if seen is not None else None
        period_s = one.update_period_s if tracker is None else seconds_from_ns(tracker.period_ns)
        latency_s = one.call_latency_s if seen is None else seen.latency_s
        notes = one.notes
        if latency_s is not None and latency_s > SLOW_CALL_SECONDS:
            notes += (f"calls are slow: stamps are uncertain by {_milliseconds(latency_s)}",)
        found.append(replace(one, update_period_s=period_s, call_latency_s=latency_s, notes=notes))
    return OpenedSource(source, tuple(found))


def _wait(deadline_ns: int) -> bool:
    sleep(max(0.0, seconds_from_ns(deadline_ns - now_ns())))
    return False


def as_object(choice: Choice) -> dict[str, object]:
    """Return ``{"source", "devices": [...], "left_out": [...], "lines": [...]}``; the source may be None."""
    return {
        "source": choice.name,
        "devices": [
            {
                "id": found.device.id,
                "kind": found.device.kind,
                "source": opened.source.name,
                "name": found.device.name,
                "uuid": found.device.uuid,
                "reading": found.reading,
                "update_period_seconds": found.update_period_s,
                "call_latency_seconds": found.call_latency_s,
                "gain_error": found.device.gain_error,
                "notes": found.notes,
            }
            for opened in choice.opened
            for found in opened.found
        ],
        "left_out": choice.left_out,
        "lines": choice.lines,
    }


def as_lines(choice: Choice) -> list[str]:
    """Return the lines for a terminal: a block for each device, or the attempts if there is none."""
    if not choice.found:
        return list(choice.lines)
    blocks = [line for o in choice.opened for found in o.found for line in _block(o.source.name, found)]
    return blocks + list(choice.left_out)


def _block(source: str, found: Found) -> list[str]:
    device = found.device
    lines = [
        f"{device.id}  {device.name or 'name not known'}",
        f"  uuid           {device.uuid or 'not known'}",
        f"  source         {source}, {found.reading}",
        f"  update period  {_milliseconds(found.update_period_s)}",
        f"  call latency   {_milliseconds(found.call_latency_s)}",
    ]
    if device.gain_error is not None:
        lines.append(f"  gain error     {device.gain_error:.0%} (90 %)")
    return lines + [f"  note           {note}" for note in found.notes]


def _milliseconds(seconds: float | None) -> str:
    return "not known" if seconds is None else f"{seconds * MS_PER_SECOND:.3g} ms"
