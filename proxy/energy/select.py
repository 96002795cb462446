"""Choosing a source: what was tried, in order, and the exact reason why it was not taken."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from proxy.config import ConfigError, MeterConfig
from proxy.energy.meter import Found, SensorError, Source
from proxy.energy.selection import Selection

KNOWN = "auto, nvml, zeus, prometheus:URL, replay:FILE, simulated:FILE, none"


@dataclass(frozen=True, slots=True)
class Choice:
    """The opened source (None: records will say unknown), its devices, and lines for the start-up log."""

    source: Source | None
    found: tuple[Found, ...] = ()
    lines: tuple[str, ...] = ()


def choose(config: MeterConfig, environ: Mapping[str, str] = os.environ) -> Choice:
    """Open the source the configuration names; ``auto`` tries NVML only, never a simulation.

    Raises :class:`ConfigError` for a name that does not exist, and for a source asked for by name that
    cannot be opened: silence would look like zero joules.
    """
    if config.devices == "none" or config.source == "none":
        return Choice(None, (), ("energy: none asked for; records will say unknown",))
    kind, _, argument = config.source.partition(":")
    if kind == "auto":
        return _auto(config, environ)
    if kind not in _MAKERS:
        raise ConfigError(f"source: {config.source!r} is not one of {KNOWN}")
    try:
        source = _MAKERS[kind](config, argument, environ)
    except SensorError as error:
        raise ConfigError(f"source: {error}") from error
    try:
        found = tuple(source.open())
    except SensorError as error:
        source.close()
        raise ConfigError(f"source: {error}") from error
    return Choice(source, found, _describe(source, found))


def _auto(config: MeterConfig, environ: Mapping[str, str]) -> Choice:
    source = _nvml(config, "", environ)
    try:
        found = tuple(source.open())
    except SensorError as error:
        return Choice(
            None,
            (),
            (
                f"energy: tried {error}",
                "energy: no source; requests are served, their records will say unknown",
            ),
        )
    return Choice(source, found, _describe(source, found))


def _describe(source: Source, found: tuple[Found, ...]) -> tuple[str, ...]:
    """One line a device."""
    return tuple(
        f"energy: {f.device.id} {f.device.name or ''} by {source.name}, {f.reading}"
        + (f" ({'; '.join(f.notes)})" if f.notes else "")
        for f in found
    )


def _nvml(config: MeterConfig, _argument: str, environ: Mapping[str, str]) -> Source:
    from proxy.energy.nvml import NvmlSource  # noqa: PLC0415  loads a driver library

    return NvmlSource(Selection(config.devices, environ.get("CUDA_VISIBLE_DEVICES")))


def _simulated(_config: MeterConfig, argument: str, _environ: Mapping[str, str]) -> Source:
    from proxy.energy.simulated import SimulatedSource  # noqa: PLC0415

    return SimulatedSource(Path(argument))


def _replay(_config: MeterConfig, argument: str, _environ: Mapping[str, str]) -> Source:
    from proxy.energy.replay import ReplaySource  # noqa: PLC0415

    return ReplaySource(Path(argument))


def _prometheus(_config: MeterConfig, argument: str, _environ: Mapping[str, str]) -> Source:
    from proxy.energy.prometheus import PrometheusSource  # noqa: PLC0415

    return PrometheusSource(argument)


def _zeus(config: MeterConfig, _argument: str, _environ: Mapping[str, str]) -> Source:
    from proxy.energy.zeus import ZeusSource  # noqa: PLC0415  optional, and loads for seconds

    return ZeusSource(Selection(config.devices))  # CUDA_VISIBLE_DEVICES: Zeus heeds it itself


_MAKERS: dict[str, Callable[[MeterConfig, str, Mapping[str, str]], Source]] = {
    "nvml": _nvml,
    "simulated": _simulated,
    "zeus": _zeus,
    "replay": _replay,
    "prometheus": _prometheus,
}
