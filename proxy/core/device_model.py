"""The fit of one device, and which group on it has which of its slots."""

import math
from collections.abc import Iterable
from typing import Final

import numpy as np
from numpy.typing import NDArray

from proxy.core.model import EnergyModel
from proxy.core.work import WIDTH
from proxy.schema import ModelTerms

Key = tuple[str, ...]
_WINDOWS_OF_YOUTH: Final = 1.0


class DeviceModel:
    """One device's :class:`EnergyModel`; groups are given slots in it as they appear."""

    __slots__ = ("_slots", "fit", "learned_ns")

    def __init__(self) -> None:
        self.fit = EnergyModel(0)
        self.learned_ns = 0  # end of the newest window it learned from
        self._slots: dict[Key, int] = {}

    @property
    def youth(self) -> float:
        """How little it has seen: from 1 (nothing) to 0."""
        return _WINDOWS_OF_YOUTH / (_WINDOWS_OF_YOUTH + self.fit.windows)

    def slot(self, key: Key) -> int:
        """The slot of a group; a new one is made room for."""
        if key not in self._slots:
            self._slots[key] = len(self._slots)
            self.fit.widen(len(self._slots))
        return self._slots[key]

    def terms(self) -> list[tuple[Key, NDArray[np.float64], NDArray[np.float64]]]:
        """The four terms of each group and the idle watts, (5,), and their standard deviations."""
        theta, deviations = self.fit.theta, self.fit.deviations()
        found = []
        for key, i in self._slots.items():
            own = [*range(i * WIDTH, (i + 1) * WIDTH), -1]
            found.append((key, theta[own], deviations[own]))
        return found


def group_terms(models: Iterable[DeviceModel], now_ns: int) -> list[ModelTerms]:
    """The fitted terms of each energy group, summed over its devices; none where nothing was fitted."""
    sums: dict[Key, NDArray[np.float64]] = {}
    squares: dict[Key, NDArray[np.float64]] = {}
    of: dict[Key, DeviceModel] = {}
    for model in models:
        if model.fit.variance is None:
            continue
        for key, terms, deviations in model.terms():
            sums[key] = sums.get(key, 0.0) + terms
            squares[key] = squares.get(key, 0.0) + deviations**2
            of[key] = model
    return [_told(key, sums[key], np.sqrt(squares[key]), of[key], now_ns) for key in sums]


def _told(
    key: Key, terms: NDArray[np.float64], deviations: NDArray[np.float64], model: DeviceModel, now_ns: int
) -> ModelTerms:
    static, decode, context, prefill, idle = terms.tolist()
    sd = [value if math.isfinite(value) else None for value in deviations.tolist()]
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
    )
