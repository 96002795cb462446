"""Choosing sources: what was tried, in order, and the exact reason why it was not taken."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from proxy.config import ConfigError, MeterConfig
from proxy.config.settings import split_sources
from proxy.energy.device_names import Selection
from proxy.energy.filtered_source import ids_named, selected
from proxy.energy.source import Found, PartialSource, SensorError, Source


@dataclass(frozen=True, slots=True)
class Opened:
    """A source that was opened, and its devices."""

    source: Source
    found: tuple[Found, ...]

    @property
    def left_out(self) -> tuple[str, ...]:
        """Devices that the source found and cannot measure, and why."""
        return self.source.left_out() if isinstance(self.source, PartialSource) else ()


@dataclass(frozen=True, slots=True)
class Choice:
    """The opened sources (none: records will say unknown), and lines for the start-up log."""

    opened: tuple[Opened, ...] = ()
    lines: tuple[str, ...] = ()

    @property
    def found(self) -> tuple[Found, ...]:
        """All devices."""
        return tuple(found for opened in self.opened for found in opened.found)

    @property
    def left_out(self) -> tuple[str, ...]:
        """Devices that were found and cannot be measured, and why."""
        return tuple(line for opened in self.opened for line in opened.left_out)

    @property
    def name(self) -> str | None:
        """What goes into records: ``nvml``, ``nvml+rapl``, ...; None without a source."""
        return "+".join(dict.fromkeys(opened.source.name for opened in self.opened)) or None

    def close(self) -> None:
        """Close all sources."""
        for opened in self.opened:
            opened.source.close()


def choose(config: MeterConfig, environ: Mapping[str, str] = os.environ) -> Choice:
    """Open the sources the configuration names; ``auto`` tries NVML only, never a simulation.

    Raises :class:`ConfigError` for a name that does not exist, and for a source asked for by name that
    cannot be opened: silence would look like zero joules.
    """
    if config.devices == "none" or config.source == "none":
        return Choice((), ("energy: none asked for; records will say unknown",))
    opened: list[Opened] = []
    lines: list[str] = []
    try:
        for kind, argument in split_sources(config.source):
            opened += _open(config, kind, argument, environ, lines)
        opened = _select(config, opened)
        if config.host_energy != "off" and not _has_host(opened):
            opened += _open(config, "rapl", "", environ, lines)
        _refuse_twins(opened)
    except ConfigError:
        Choice(tuple(opened)).close()
        raise
    return Choice(tuple(opened), (*lines, *(line for o in opened for line in _describe(o))))


def _open(
    config: MeterConfig, kind: str, argument: str, environ: Mapping[str, str], lines: list[str]
) -> list[Opened]:
    """Open one source. ``auto`` that finds nothing, and a host without RAPL beside others, add a line."""
    maker = _nvml if kind == "auto" else _MAKERS.get(kind)
    if maker is None:
        raise ConfigError(f"source: {config.source!r}: {kind} is not one of auto, {', '.join(_MAKERS)}, none")
    source: Source | None = None
    try:
        source = maker(config, argument, environ)
        return [Opened(source, tuple(source.open()))]
    # Whatever a library or a file makes it raise: a source that cannot be opened is a line, not the traceback
    # of a meter that is started again for ever.
    except Exception as error:
        if source is not None:
            source.close()
        reason = str(error) if isinstance(error, SensorError) else f"{kind} cannot be used: {error!r}"
        if kind != "auto":
            raise ConfigError(f"source: {reason}") from error
        lines.append(f"energy: tried {reason}")
        lines.append("energy: no source; requests are served, their records will say unknown")
        return []


def _selects_itself(config: MeterConfig) -> bool:
    """Whether the source knows which devices are wanted before it opens them."""
    return config.source in {"auto", "nvml", "zeus"}


def _select(config: MeterConfig, opened: list[Opened]) -> list[Opened]:
    """The opened sources with the devices that ``devices`` names, and hosts where these are asked for.

    Raises :class:`ConfigError` for a device that is not there.
    """
    if config.devices == "auto" or _selects_itself(config) or not opened:
        return opened
    ids = ids_named(config.devices, [found.device for one in opened for found in one.found])
    kept = []
    for one in opened:
        found = tuple(
            f
            for f in one.found
            if f.device.id in ids or (f.device.kind == "host" and config.host_energy != "off")
        )
        if not found:
            one.source.close()
            continue
        names = frozenset(f.device.id for f in found)
        source = one.source if found == one.found else selected(one.source, names)
        kept.append(Opened(source, found))
    return kept


def _has_host(opened: Sequence[Opened]) -> bool:
    """Whether a host's own use is measured already: by a Grace Hopper's module, an agent, a named source."""
    return any(found.device.kind == "host" for one in opened for found in one.found)


def _refuse_twins(opened: Sequence[Opened]) -> None:
    seen: dict[str, str] = {}
    for one in opened:
        for found in one.found:
            if found.device.id in seen:
                raise ConfigError(
                    f"source: {seen[found.device.id]} and {one.source.name} both have a device "
                    f"{found.device.id}: it would count twice, name one of them"
                )
            seen[found.device.id] = one.source.name


def _describe(opened: Opened) -> tuple[str, ...]:
    """One line a device."""
    return tuple(
        f"energy: {f.device.id} {f.device.name or ''} by {opened.source.name}, {f.reading}"
        + (f" ({'; '.join(f.notes)})" if f.notes else "")
        for f in opened.found
    ) + tuple(f"energy: {line}" for line in opened.left_out)


def _nvml(config: MeterConfig, _argument: str, environ: Mapping[str, str]) -> Source:
    from proxy.energy.nvml import NvmlSource  # noqa: PLC0415  loads a driver library

    devices = config.devices if _selects_itself(config) else "auto"
    selection = Selection(devices, environ.get("CUDA_VISIBLE_DEVICES"))
    return NvmlSource(selection, host=config.host_energy != "off")


def _simulated(_config: MeterConfig, argument: str, _environ: Mapping[str, str]) -> Source:
    from proxy.energy.simulated import SimulatedSource  # noqa: PLC0415

    return SimulatedSource(Path(argument))


def _replay(_config: MeterConfig, argument: str, _environ: Mapping[str, str]) -> Source:
    from proxy.energy.replay import ReplaySource  # noqa: PLC0415

    return ReplaySource(Path(argument))


def _prometheus(_config: MeterConfig, argument: str, _environ: Mapping[str, str]) -> Source:
    from proxy.energy.prometheus import PrometheusSource  # noqa: PLC0415

    return PrometheusSource(argument)


def _agent(config: MeterConfig, argument: str, _environ: Mapping[str, str]) -> Source:
    from proxy.energy.agent import AgentSource  # noqa: PLC0415

    return AgentSource(argument, config.agent_token)


def _estimate(_config: MeterConfig, argument: str, _environ: Mapping[str, str]) -> Source:
    from proxy.energy.estimate import EstimateSource  # noqa: PLC0415

    return EstimateSource(argument)


def _zeus(config: MeterConfig, argument: str, environ: Mapping[str, str]) -> Source:
    if argument:
        from proxy.energy.zeus import ZeusdSource  # noqa: PLC0415  optional, and loads for seconds

        return ZeusdSource(argument, environ.get("ZEUSD_TOKEN"))
    from proxy.energy.zeus import ZeusSource  # noqa: PLC0415

    return ZeusSource(
        Selection(config.devices if _selects_itself(config) else "auto")
    )  # CUDA_VISIBLE_DEVICES: Zeus heeds it itself


def _rapl(_config: MeterConfig, _argument: str, _environ: Mapping[str, str]) -> Source:
    from proxy.energy.zeus import RaplSource  # noqa: PLC0415  as above

    return RaplSource()


_MAKERS: dict[str, Callable[[MeterConfig, str, Mapping[str, str]], Source]] = {
    "nvml": _nvml,
    "zeus": _zeus,
    "prometheus": _prometheus,
    "agent": _agent,
    "rapl": _rapl,
    "estimate": _estimate,
    "replay": _replay,
    "simulated": _simulated,
}
