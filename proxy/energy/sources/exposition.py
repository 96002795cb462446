"""Points of one metric, from an exporter's text page or a Prometheus server's JSON. Pure.

One device is one reading. An exporter may list it many times: once for each pod, container or namespace that
uses it, once for each scrape target. Series that differ only in such labels are the same reading; where their
values differ, the largest is taken, which of a counter is the newest. Only series that say which part of the
device they count (Kepler's modes) are summed.

MIG instances are left out: DCGM repeats the whole GPU's reading for each of them. A line that cannot be
read is left out as well.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Final, TypeVar

import msgspec
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from proxy.core.plausible import is_amount
from proxy.energy.source import SensorError
from proxy.units import ns_from_seconds

T = TypeVar("T")
_UUID_LABELS: Final = ("UUID", "uuid", "gpu_uuid")
_INDEX_LABELS: Final = ("gpu", "device")
_HOST_LABELS: Final = ("Hostname", "hostname", "node", "host", "instance")
_PART_LABELS: Final = ("mode", "zone", "rail", "phase")  # of a device that is named: series to be summed
# Of a device that is not named, all labels but these say which part it is: they say who uses it or who asked.
_USER_LABELS: Final = (
    "pod",
    "pod_name",
    "pod_uid",
    "namespace",
    "container",
    "job",
    "service",
    "endpoint",
    "vgpu",
)
_NAME_LABELS: Final = ("modelName", "gpu_name", "name")
_MIG_LABELS: Final = ("GPU_I_ID", "GPU_I_PROFILE")


@dataclass(frozen=True, slots=True)
class Point:
    """One value: the device's id, name and uuid, in the metric's unit, at ``t_ns``."""

    device: str
    name: str | None
    uuid: str | None
    value: float
    t_ns: int
    part: tuple[tuple[str, str], ...] = ()


class _Series(msgspec.Struct):
    metric: dict[str, str]
    values: list[tuple[float, str]] = []


class _Matrix(msgspec.Struct):
    result: list[_Series]


class _Scalar(msgspec.Struct):
    result: tuple[float, str]


class _Answer(msgspec.Struct):
    status: str
    data: msgspec.Raw = msgspec.Raw(b"")
    error: str = ""


def points(page: str, metric: str, t_ns: int) -> list[Point]:
    """The page's samples of one metric, all at ``t_ns``; raises :class:`SensorError` where all are of MIG."""
    names = {metric, f"{metric}_total"}  # the parser adds it to counters
    found = [
        (sample.labels, float(sample.value), t_ns)
        for line in page.splitlines()
        if line.startswith(metric)
        for sample in _samples(line)
        if sample.name in names
    ]
    return _merged(found)


def _samples(line: str) -> list[Sample]:
    """The samples of one line; none where it cannot be read."""
    try:
        return [s for family in text_string_to_metric_families(line + "\n") for s in family.samples]
    except ValueError:
        return []


def as_range(answer: str, here: Callable[[int], int]) -> list[Point]:
    """Raw samples of a range query, oldest first, their stamps turned by ``here``."""
    found = [
        (series.metric, float(value), here(ns_from_seconds(t)))
        for series in _data(answer, _Matrix).result
        for t, value in series.values
    ]
    return _merged(sorted(found, key=lambda one: one[2]))


def as_time(answer: str) -> int:
    """Unix nanoseconds that the server answered to ``time()``."""
    return ns_from_seconds(float(_data(answer, _Scalar).result[1]))


def _data(answer: str, kind: type[T]) -> T:
    """The data of a query's answer; raises :class:`SensorError`."""
    try:
        parsed = msgspec.json.decode(answer, type=_Answer)
        if parsed.data:
            return msgspec.json.decode(parsed.data, type=kind)
    except msgspec.MsgspecError as error:
        raise SensorError(f"prometheus: not an answer of the query API as asked: {error}") from error
    raise SensorError(f"prometheus: the server answers {parsed.status}: {parsed.error}")


def _merged(found: Iterable[tuple[Mapping[str, str], float, int]]) -> list[Point]:
    """One point a device and stamp, of labels, value and stamp of each series."""
    instances, best = False, dict[tuple[str, int], dict[tuple[tuple[str, str], ...], Point]]()
    for labels, value, t_ns in found:
        if any(labels.get(label) for label in _MIG_LABELS):
            instances = True
            continue
        point = _point(labels, value, t_ns)
        parts = best.setdefault((point.device, t_ns), {})
        known = parts.get(point.part)
        if known is None or not is_amount(known.value) or (is_amount(value) and value > known.value):
            parts[point.part] = point
    if instances and not best:
        raise SensorError(
            "prometheus: the exporter reports MIG instances, each with the reading of the whole GPU: "
            "disable MIG, or read the GPU by another source"
        )
    return [_summed(list(parts.values())) for parts in best.values()]


def _summed(parts: list[Point]) -> Point:
    return replace(parts[0], value=sum(part.value for part in parts), part=())


def _point(labels: Mapping[str, str], value: float, t_ns: int) -> Point:
    """A series as a point. Its device is the UUID, else the index on the host, else the host."""
    uuid, index, host = (_first(labels, names) for names in (_UUID_LABELS, _INDEX_LABELS, _HOST_LABELS))
    device = uuid or (f"{host}/{index}" if host and index else index) or host or "device0"
    if uuid or index:
        part = tuple((name, labels[name]) for name in _PART_LABELS if labels.get(name))
    else:
        ignored = (*_USER_LABELS, *_HOST_LABELS)
        kept = (
            item for item in labels.items() if item[0] not in ignored and not item[0].startswith("exported_")
        )
        part = tuple(sorted(kept))
    known = uuid if uuid is not None and uuid.startswith("GPU-") else None
    return Point(device, _first(labels, _NAME_LABELS), known, value, t_ns, part)


def _first(labels: Mapping[str, str], names: Iterable[str]) -> str | None:
    """The value of the first of these labels that is set."""
    return next((labels[name] for name in names if labels.get(name)), None)
