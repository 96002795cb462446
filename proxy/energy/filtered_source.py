"""Reduce a source to some of its devices: ``--devices`` for sources that do not select devices themselves.

The devices of such a source are known only after it was opened with all of them; readings of those that are
not selected are discarded.
"""

from collections.abc import Sequence

from proxy.config import ConfigError
from proxy.core.events import Device, Sample
from proxy.energy.source import EdgeSource, Found, PartialSource, ProcessSource, Source


def ids_named(names: str, devices: Sequence[Device]) -> frozenset[str]:
    """Return the ids of the devices that ``--devices`` names: by id, index or (the beginning of) a UUID.

    An index is that of ``gpuN``, also of ``HOST/gpuN``; if no id has this form it is the position in the
    list. Raises :class:`ConfigError` for a name that matches none or several of the devices.
    """
    given = [name.strip() for name in names.split(",") if name.strip()]
    return frozenset(_named(name, devices) for name in given)


def _named(name: str, devices: Sequence[Device]) -> str:
    local = f"gpu{name}" if name.isdigit() else name
    for matches in (
        [d.id for d in devices if d.id in {name, local}],
        [d.id for d in devices if d.id.endswith(f"/{local}")],
        [d.id for d in devices if d.uuid is not None and d.uuid.startswith(name)],
    ):
        if len(matches) == 1:
            return matches[0]
    if name.isdigit() and int(name) < len(devices) and not any("gpu" in d.id for d in devices):
        return devices[int(name)].id
    known = ", ".join(f"{d.id} ({d.uuid})" if d.uuid and d.uuid != d.id else d.id for d in devices)
    raise ConfigError(f"devices: {name!r} matches none or several of the devices found: {known}")


class FilteredSource:
    """An open source of which only some devices are read."""

    def __init__(self, inner: Source, ids: frozenset[str]) -> None:
        self._inner = inner
        self._ids = ids
        self.name = inner.name
        self.interval_s = inner.interval_s

    def open(self) -> list[Found]:
        """Open the source and return the selected devices."""
        return [found for found in self._inner.open() if found.device.id in self._ids]

    def read(self) -> list[Sample]:
        """Return the readings of the selected devices."""
        return [sample for sample in self._inner.read() if sample.device in self._ids]

    def left_out(self) -> tuple[str, ...]:
        """Return the devices that the source could not open."""
        return self._inner.left_out() if isinstance(self._inner, PartialSource) else ()

    def close(self) -> None:
        """Close the source."""
        self._inner.close()


class FilteredEdgeSource(FilteredSource):
    """The same for a source whose counters can be polled."""

    def __init__(self, inner: EdgeSource, ids: frozenset[str]) -> None:
        super().__init__(inner, ids)
        self._edges = inner

    def counters(self) -> tuple[str, ...]:
        """Return the selected devices that are read by a counter."""
        return tuple(device for device in self._edges.counters() if device in self._ids)

    def peek(self, device: str) -> Sample | None:
        """Read one counter."""
        return self._edges.peek(device)


class FilteredProcessSource(FilteredEdgeSource):
    """The same for a source whose driver also lists processes."""

    def __init__(self, inner: EdgeSource, processes: ProcessSource, ids: frozenset[str]) -> None:
        super().__init__(inner, ids)
        self._processes = processes

    def processes(self) -> dict[str, dict[int, float | None]]:
        """Return the processes on the selected devices."""
        return {d: found for d, found in self._processes.processes().items() if d in self._ids}


def filter_source(source: Source, ids: frozenset[str]) -> Source:
    """Return the source reduced to some of its devices, with the abilities that it has."""
    if isinstance(source, EdgeSource) and isinstance(source, ProcessSource):
        return FilteredProcessSource(source, source, ids)
    if isinstance(source, EdgeSource):
        return FilteredEdgeSource(source, ids)
    return FilteredSource(source, ids)
