"""Values of one metric by device, from an exporter's text page or a Prometheus server's JSON. Pure.

A device has one reading, but an exporter may list it many times: once for each pod, container or namespace
that uses it, once for each scrape target. Series that differ only in such labels are the same reading; if
their values differ, the largest one is used, which of a counter is the newest. Only series whose labels state
which part of the device they measure (Kepler's modes) are added up.

MIG instances are skipped, because DCGM repeats the reading of the entire GPU for each of them. A line that
cannot be parsed is skipped as well.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Final, TypeVar

import msgspec
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from proxy.core.energy.plausible import is_amount
from proxy.energy.source import SensorError
from proxy.units import ns_from_seconds

T = TypeVar("T")
_UUID_LABELS: Final = ("UUID", "uuid", "gpu_uuid")
_INDEX_LABELS: Final = ("gpu", "device")
_HOST_LABELS: Final = ("Hostname", "hostname", "node", "host", "instance")
_PART_LABELS: Final = ("mode", "zone", "rail", "phase")  # parts of a device with UUID or index: added up
# Labels of the user of a device or of the scraper. If a device has neither UUID nor index, all other labels
# together identify the part.
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
    """One value of a device.

    Attributes:
        device: Id of the device.
        name: Its model name, if a label contains it.
        uuid: Its UUID, if a label contains it.
        value: In the unit of the metric.
        t_ns: Time of the value.
        part: Labels that identify the part of the device; empty for the entire device.
    """

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


class _Response(msgspec.Struct):
    status: str
    data: msgspec.Raw = msgspec.Raw(b"")
    error: str = ""


def points(page: str, metric: str, t_ns: int) -> list[Point]:
    """Return the values of one metric on a page of an exporter.

    Args:
        page: Prometheus text format.
        metric: Name of the metric, with or without the suffix ``_total``.
        t_ns: Time of the scrape, for all values.

    Raises:
        SensorError: if all values are of MIG instances.
    """
    names = {metric, f"{metric}_total"}  # the parser adds the suffix to counters
    found = [
        (sample.labels, float(sample.value), t_ns)
        for line in page.splitlines()
        if line.startswith(metric)
        for sample in _samples(line)
        if sample.name in names
    ]
    return _merged(found)


def _samples(line: str) -> list[Sample]:
    """Return the samples of one line; none if it cannot be parsed."""
    try:
        return [s for family in text_string_to_metric_families(line + "\n") for s in family.samples]
    except ValueError:
        return []


def as_range(body: str, to_local: Callable[[int], int]) -> list[Point]:
    """Return the raw samples in the response to a range query, oldest first.

    Args:
        body: JSON of the query API.
        to_local: Converts Unix nanoseconds of the server to this host's monotonic clock.

    Raises:
        SensorError: if the response is an error or malformed.
    """
    found = [
        (series.metric, float(value), to_local(ns_from_seconds(t)))
        for series in _data(body, _Matrix).result
        for t, value in series.values
    ]
    return _merged(sorted(found, key=lambda one: one[2]))


def as_time(body: str) -> int:
    """Return the Unix nanoseconds in the response to the query ``time()``; raises :class:`SensorError`."""
    return ns_from_seconds(float(_data(body, _Scalar).result[1]))


def _data(body: str, kind: type[T]) -> T:
    """Decode the data of a response of the query API; raises :class:`SensorError`."""
    try:
        parsed = msgspec.json.decode(body, type=_Response)
        if parsed.data:
            return msgspec.json.decode(parsed.data, type=kind)
    except msgspec.MsgspecError as error:
        raise SensorError(f"prometheus: not a response of the query API (/api/v1/query): {error}") from error
    raise SensorError(f"prometheus: the server returned {parsed.status}: {parsed.error}")


def _merged(found: Iterable[tuple[Mapping[str, str], float, int]]) -> list[Point]:
    """Return one point for each device and time, from (labels, value, time) of each series."""
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
            "prometheus: the exporter reports MIG instances, each with the reading of the entire GPU: "
            "disable MIG, or read the GPU by another source"
        )
    return [_summed(list(parts.values())) for parts in best.values()]


def _summed(parts: list[Point]) -> Point:
    return replace(parts[0], value=sum(part.value for part in parts), part=())


def _point(labels: Mapping[str, str], value: float, t_ns: int) -> Point:
    """Return a series as a point. Its device id is the UUID, else index and host, else the host."""
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
    """Return the value of the first of these labels that is not empty."""
    return next((labels[name] for name in names if labels.get(name)), None)
