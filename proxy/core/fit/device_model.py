"""The fit of one device, and which group on it has which of its slots."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from proxy.core.activity.work import PARTS
from proxy.core.fit.model import SURE, EnergyModel
from proxy.schema import ModelTerms

Key = tuple[str, ...]
_WINDOWS_OF_YOUTH: Final = 1.0


@dataclass(frozen=True, slots=True)
class _Terms:
    """Four terms (J) and the idle watts, (5,): value, variance, and whether the data leaves them unsure."""

    value: NDArray[np.float64]
    variance: NDArray[np.float64]
    unsure: NDArray[np.bool_]

    def plus(self, other: "_Terms") -> "_Terms":
        """The sum over two devices."""
        return _Terms(self.value + other.value, self.variance + other.variance, self.unsure | other.unsure)


class DeviceModel:
    """One device's :class:`EnergyModel`; groups are given slots in it as they appear."""

    __slots__ = ("_slots", "fit", "learned_ns")

    def __init__(self) -> None:
        self.fit = EnergyModel(0)
        self.learned_ns = 0  # end of the newest window it learned from
        self._slots: dict[Key, int] = {}

    @property
    def youth(self) -> float:
        """Return how little was learned: from 1 (nothing) to 0."""
        return _WINDOWS_OF_YOUTH / (_WINDOWS_OF_YOUTH + self.fit.windows)

    def slot(self, key: Key) -> int:
        """Return the slot of a group; assign one to a new group."""
        if key not in self._slots:
            self._slots[key] = len(self._slots)
            self.fit.widen(len(self._slots))
        return self._slots[key]

    def terms(self) -> Iterator[tuple[Key, "_Terms"]]:
        """Yield the terms of each group."""
        fit = self.fit
        idle = fit.deviations()[-1]
        for key, slot in self._slots.items():
            value, deviation = fit.parts(slot)
            value, deviation = np.append(value, fit.theta[-1]), np.append(deviation, idle)
            unsure = np.append(fit.unsure(slot), np.isfinite(idle) and idle > SURE * fit.theta[-1])
            yield key, _Terms(value, deviation**2, unsure)


def group_terms(models: Mapping[str, DeviceModel], now_ns: int) -> list[ModelTerms]:
    """Return the fitted terms of each energy group, summed over its devices.

    Args:
        models: the fit of each device.
        now_ns: the time at which the age of the terms is computed.

    Returns:
        One record for each engine that was found; none where nothing was fitted.
    """
    sums: dict[Key, _Terms] = {}
    of: dict[Key, DeviceModel] = {}
    devices: dict[Key, list[str]] = {}
    for device, model in models.items():
        if model.fit.variance is None:
            continue
        for key, terms in model.terms():
            sums[key] = terms.plus(sums[key]) if key in sums else terms
            of[key] = model
            devices.setdefault(key, []).append(device)
    return [_model_terms(key, sums[key], of[key], tuple(devices[key]), now_ns) for key in sums]


def _model_terms(
    key: Key, terms: "_Terms", model: DeviceModel, devices: tuple[str, ...], now_ns: int
) -> ModelTerms:
    """Return the record of one group; terms that are not determined are null."""
    sd = [math.sqrt(value) if math.isfinite(value) else None for value in terms.variance.tolist()]
    rows = zip(terms.value.tolist(), sd, terms.unsure.tolist(), strict=True)
    static, decode, context, prefill, idle = (
        None if deviation is None or unsure else value for value, deviation, unsure in rows
    )
    return ModelTerms(
        group=",".join(part for part in key if part),
        static_j=static,
        decode_j=decode,
        context_j=context,
        prefill_j=prefill,
        idle_w=idle,
        r2=model.fit.r2,
        windows=model.fit.windows,
        age_s=max(now_ns - model.learned_ns, 0) / 1e9,
        prior=not model.fit.mature,
        static_sd_j=sd[0],
        decode_sd_j=sd[1],
        context_sd_j=sd[2],
        prefill_sd_j=sd[3],
        idle_sd_w=sd[4],
        devices=devices,
        unseparated=tuple(name for name, unsure in zip(PARTS, terms.unsure, strict=False) if unsure),
    )
