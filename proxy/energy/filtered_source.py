"""Some devices of a source: ``--devices`` for sources that have no selection of their own.

A source is opened whole, because only then its devices are known; readings of those not selected are dropped.
"""

from collections.abc import Sequence

from proxy.config import ConfigError
from proxy.core.events import Device, Sample
from proxy.energy.source import EdgeSource, Found, PartialSource, ProcessSource, Source


def ids_named(names: str, devices: Sequence[Device]) -> frozenset[str]:
    """Ids of the devices that ``--devices`` names: by id, index or (the beginning of) a UUID.

    An index is that of ``gpuN``, also of ``HOST/gpuN``; where ids are not of this form it is the position in
    the list. Raises :class:`ConfigError` for a name that is none or several of the devices.
    """
    wanted = [name.strip() for name in names.split(",") if name.strip()]
    return frozenset(_named(name, devices) for name in wanted)


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
    raise ConfigError(f"devices: {name!r} is none, or not one, of those found: {known}")


class Selected:
    """A source of which only some devices are read. Opened before."""

    def __init__(self, inner: Source, ids: frozenset[str]) -> None:
        self._inner = inner
        self._ids = ids
        self.name = inner.name
        self.interval_s = inner.interval_s

    def open(self) -> list[Found]:
        """Open the source; its selected devices."""
        return [found for found in self._inner.open() if found.device.id in self._ids]

    def read(self) -> list[Sample]:
        """Readings of the selected devices."""
        return [sample for sample in self._inner.read() if sample.device in self._ids]

    def left_out(self) -> tuple[str, ...]:
        """As of the source."""
        return self._inner.left_out() if isinstance(self._inner, PartialSource) else ()

    def close(self) -> None:
        """Close the source."""
        self._inner.close()


class SelectedEdges(Selected):
    """The same of a source of counters whose edges are looked for."""

    def __init__(self, inner: EdgeSource, ids: frozenset[str]) -> None:
        super().__init__(inner, ids)
        self._edges = inner

    def counters(self) -> tuple[str, ...]:
        """Those of the selected devices."""
        return tuple(device for device in self._edges.counters() if device in self._ids)

    def peek(self, device: str) -> Sample | None:
        """As of the source."""
        return self._edges.peek(device)


class SelectedProcesses(SelectedEdges):
    """The same of a source whose driver knows the processes, too."""

    def __init__(self, inner: EdgeSource, processes: ProcessSource, ids: frozenset[str]) -> None:
        super().__init__(inner, ids)
        self._processes = processes

    def processes(self) -> dict[str, dict[int, float | None]]:
        """Those of the selected devices."""
        return {d: found for d, found in self._processes.processes().items() if d in self._ids}


def selected(source: Source, ids: frozenset[str]) -> Source:
    """The source, reduced to some of its devices."""
    if isinstance(source, EdgeSource) and isinstance(source, ProcessSource):
        return SelectedProcesses(source, source, ids)
    if isinstance(source, EdgeSource):
        return SelectedEdges(source, ids)
    return Selected(source, ids)
