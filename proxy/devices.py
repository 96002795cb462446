"""``jouleproxy devices``: what can be measured here, how, and what was tried."""

import os
import sys
from collections.abc import Mapping
from typing import IO

import msgspec

from proxy.config import MeterConfig
from proxy.energy.meter import Found
from proxy.energy.select import Choice, choose
from proxy.units import MS_PER_SECOND


def run(
    config: MeterConfig, out: IO[str] = sys.stdout, *, as_json: bool, environ: Mapping[str, str] = os.environ
) -> int:
    """Look once and say what was found; 0 also where nothing can be measured: that is the answer.

    Raises :class:`~proxy.config.ConfigError` for a source asked for by name that cannot be opened.
    """
    choice = choose(config, environ)
    try:
        if as_json:
            out.write(msgspec.json.encode(as_object(choice)).decode() + "\n")
        else:
            out.write("\n".join(as_lines(choice)) + "\n")
    finally:
        if choice.source is not None:
            choice.source.close()
    return 0


def as_object(choice: Choice) -> dict[str, object]:
    """``{"source", "devices": [...], "lines": [...]}``; source is null where nothing can be measured."""
    return {
        "source": choice.source.name if choice.source else None,
        "devices": [
            {
                "id": found.device.id,
                "name": found.device.name,
                "uuid": found.device.uuid,
                "reading": found.reading,
                "update_period_seconds": found.update_period_s,
                "call_latency_seconds": found.call_latency_s,
                "gain_error": found.device.gain_error,
                "notes": found.notes,
            }
            for found in choice.found
        ],
        "lines": choice.lines,
    }


def as_lines(choice: Choice) -> list[str]:
    """For a terminal: a block a device, or what was tried."""
    if choice.source is None or not choice.found:
        return list(choice.lines)
    lines = []
    for found in choice.found:
        lines += _block(choice.source.name, found)
    return lines


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
