"""Choosing sources: what was tried, in order, and the exact reason why it was not taken."""

import importlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

from proxy.config import ConfigError, MeterConfig
from proxy.config.sources import AUTO, NONE, SOURCES, SourceKind, split_sources
from proxy.energy.filtered_source import ids_named, selected
from proxy.energy.source import Found, PartialSource, SensorError, Source, SourceOptions


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
    if NONE in {config.devices, config.source}:
        return Choice((), ("energy: none asked for; records will say unknown",))
    opened: list[Opened] = []
    lines: list[str] = []
    try:
        for name, argument in split_sources(config.source):
            opened += _open(config, name, argument, environ, lines)
        opened = _select(config, opened)
        if config.host_energy != "off" and not _has_host(opened):
            opened += _open(config, "rapl", "", environ, lines)
        _refuse_twins(opened)
    except ConfigError:
        Choice(tuple(opened)).close()
        raise
    return Choice(tuple(opened), (*lines, *(line for o in opened for line in _describe(o))))


def _open(
    config: MeterConfig, name: str, argument: str, environ: Mapping[str, str], lines: list[str]
) -> list[Opened]:
    """Open one source. ``auto`` is NVML; if it finds nothing, lines for the log are added instead."""
    kind = SOURCES["nvml" if name == AUTO else name]
    source: Source | None = None
    try:
        source = create(kind, config, argument, environ)
        return [Opened(source, tuple(source.open()))]
    # Whatever a library or a file makes it raise: a source that cannot be opened is a line, not the traceback
    # of a meter that is started again for ever.
    except Exception as error:
        if source is not None:
            source.close()
        reason = str(error) if isinstance(error, SensorError) else f"{name} cannot be used: {error!r}"
        if name != AUTO:
            raise ConfigError(f"source: {reason}") from error
        lines.append(f"energy: tried {reason}")
        lines.append("energy: no source; requests are served, their records will say unknown")
        return []


def create(kind: SourceKind, config: MeterConfig, argument: str, environ: Mapping[str, str]) -> Source:
    """Import the module of a registered source and create the source; it is not open yet."""
    module, _, function = kind.factory.partition(":")
    factory = cast(Callable[[SourceOptions], Source], getattr(importlib.import_module(module), function))
    devices = config.devices if _selects_itself(config) else "auto"
    host_energy = config.host_energy != "off"
    return factory(SourceOptions(argument, devices, host_energy, config.agent_token, environ))


def _selects_itself(config: MeterConfig) -> bool:
    """Return whether the only source selects its devices itself, before it opens them."""
    name = "nvml" if config.source == AUTO else config.source
    return name in SOURCES and SOURCES[name].selects_devices


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
