"""Open the sources of ``--source`` and select their devices.

A source that was requested by name and cannot be opened is an error, because records without energy would
look like zero joules. Only ``auto`` continues without a source, with the reason in the log.
"""

import importlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

from proxy.config import ConfigError, MeterConfig
from proxy.config.sources import AUTO, NONE, SOURCES, SourceKind, split_sources
from proxy.energy.filtered_source import filter_source, ids_named
from proxy.energy.source import Found, PartialSource, SensorError, Source, SourceOptions


@dataclass(frozen=True, slots=True)
class OpenedSource:
    """An open source and the devices that are read from it."""

    source: Source
    found: tuple[Found, ...]

    @property
    def left_out(self) -> tuple[str, ...]:
        """One line for each device that the source found but cannot measure."""
        return self.source.left_out() if isinstance(self.source, PartialSource) else ()


@dataclass(frozen=True, slots=True)
class Choice:
    """The open sources (none: energy is unknown), and lines for the log at start."""

    opened: tuple[OpenedSource, ...] = ()
    lines: tuple[str, ...] = ()

    @property
    def found(self) -> tuple[Found, ...]:
        """The devices of all sources."""
        return tuple(found for opened in self.opened for found in opened.found)

    @property
    def left_out(self) -> tuple[str, ...]:
        """One line for each device that was found but cannot be measured."""
        return tuple(line for opened in self.opened for line in opened.left_out)

    @property
    def name(self) -> str | None:
        """Source name for records: ``nvml``, ``nvml+rapl``, ...; None without a source."""
        return "+".join(dict.fromkeys(opened.source.name for opened in self.opened)) or None

    def close(self) -> None:
        """Close all sources."""
        for opened in self.opened:
            opened.source.close()


def choose(config: MeterConfig, environ: Mapping[str, str] = os.environ) -> Choice:
    """Open the configured sources. ``auto`` tries NVML only, never a simulation.

    Args:
        config: The settings ``source``, ``devices``, ``host_energy`` and ``agent_token`` are used.
        environ: Environment variables.

    Returns:
        The open sources; the caller closes them.

    Raises:
        ConfigError: for an unknown source or device, a source requested by name that cannot be opened, and a
            device that two sources have. Sources opened so far are closed.
    """
    if NONE in {config.devices, config.source}:
        return Choice((), ("energy: disabled by the settings; the energy of requests is unknown",))
    opened: list[OpenedSource] = []
    lines: list[str] = []
    try:
        for name, argument in split_sources(config.source):
            opened += _open(config, name, argument, environ, lines)
        opened = _select(config, opened)
        if config.host_energy != "off" and not _has_host(opened):
            opened += _open(config, "rapl", "", environ, lines)
        _reject_duplicates(opened)
    except ConfigError:
        Choice(tuple(opened)).close()
        raise
    return Choice(tuple(opened), (*lines, *(line for o in opened for line in _describe(o))))


def _open(
    config: MeterConfig, name: str, argument: str, environ: Mapping[str, str], lines: list[str]
) -> list[OpenedSource]:
    """Open one source. ``auto`` is NVML; if it finds nothing, lines for the log are added instead."""
    kind = SOURCES["nvml" if name == AUTO else name]
    source: Source | None = None
    try:
        source = create(kind, config, argument, environ)
        return [OpenedSource(source, tuple(source.open()))]
    # A library may raise anything. An exception that escaped here would end the meter with a traceback, and
    # the supervisor would restart it forever.
    except Exception as error:
        if source is not None:
            source.close()
        reason = str(error) if isinstance(error, SensorError) else f"{name} cannot be used: {error!r}"
        if name != AUTO:
            raise ConfigError(f"source: {reason}") from error
        lines.append(f"energy: tried {reason}")
        lines.append("energy: no source; requests are served, their energy is unknown")
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


def _select(config: MeterConfig, opened: list[OpenedSource]) -> list[OpenedSource]:
    """Reduce sources that do not select their devices themselves to those that ``--devices`` names.

    Hosts (CPUs and memory) are kept if ``--host-energy`` is on. A source without any selected device is
    closed. Raises :class:`ConfigError` for a device that was not found.
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
        source = one.source if found == one.found else filter_source(one.source, names)
        kept.append(OpenedSource(source, found))
    return kept


def _has_host(opened: Sequence[OpenedSource]) -> bool:
    """Return whether a source measures a host: the module of a Grace Hopper, an agent, a named source."""
    return any(found.device.kind == "host" for one in opened for found in one.found)


def _reject_duplicates(opened: Sequence[OpenedSource]) -> None:
    """Raise :class:`ConfigError` if two sources have the same device, whose energy would count twice."""
    seen: dict[str, str] = {}
    for one in opened:
        for found in one.found:
            if found.device.id in seen:
                raise ConfigError(
                    f"source: {seen[found.device.id]} and {one.source.name} both have a device "
                    f"{found.device.id}: it would count twice, name one of them"
                )
            seen[found.device.id] = one.source.name


def _describe(opened: OpenedSource) -> tuple[str, ...]:
    """Return one line for each device of a source."""
    return tuple(
        f"energy: {f.device.id} {f.device.name or ''} by {opened.source.name}, {f.reading}"
        + (f" ({'; '.join(f.notes)})" if f.notes else "")
        for f in opened.found
    ) + tuple(f"energy: {line}" for line in opened.left_out)
