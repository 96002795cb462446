"""Points of one metric, from an exporter's text page or a Prometheus server's JSON. Pure.

Several series of one device are summed (Kepler's modes), but for MIG instances: DCGM repeats the whole
GPU's reading for each of them, so they are refused.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Final, TypeVar

import msgspec
from prometheus_client.parser import text_string_to_metric_families

from proxy.energy.meter import SensorError
from proxy.units import ns_from_seconds

T = TypeVar("T")
_ID_LABELS: Final = ("UUID", "uuid", "gpu_uuid", "gpu", "device", "instance")
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
    """The page's samples of one metric, all at ``t_ns``; raises :class:`SensorError`."""
    try:
        found = [
            _point(sample.labels, sample.value, t_ns)
            for family in text_string_to_metric_families(page)
            for sample in family.samples
            if sample.name in {metric, f"{metric}_total"}  # the parser adds it to counters
        ]
    except ValueError as error:
        raise SensorError(f"prometheus: not a metrics page: {error}") from error
    return _summed(found)


def as_range(answer: str, here: Callable[[int], int]) -> list[Point]:
    """Raw samples of a range query, oldest first, their stamps turned by ``here``."""
    found = [
        _point(series.metric, float(value), here(ns_from_seconds(t)))
        for series in _data(answer, _Matrix).result
        for t, value in series.values
    ]
    return _summed(sorted(found, key=lambda point: point.t_ns))


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


def _point(labels: Mapping[str, str], value: float, t_ns: int) -> Point:
    if any(labels.get(label) for label in _MIG_LABELS):
        raise SensorError(
            "prometheus: the exporter reports MIG instances, each with the reading of the whole GPU: "
            "disable MIG, or read the GPU by another source"
        )
    ids = [labels[label] for label in _ID_LABELS if labels.get(label)]
    names = [labels[label] for label in _NAME_LABELS if labels.get(label)]
    uuid = next((i for i in ids if i.startswith("GPU-")), None)
    return Point(ids[0] if ids else "device0", names[0] if names else None, uuid, value, t_ns)


def _summed(found: Iterable[Point]) -> list[Point]:
    """One point a device and stamp."""
    sums: dict[tuple[str, int], Point] = {}
    for point in found:
        key = (point.device, point.t_ns)
        known = sums.get(key)
        sums[key] = point if known is None else replace(known, value=known.value + point.value)
    return list(sums.values())
