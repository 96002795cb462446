"""The fit of one device, and which group on it has which of its slots."""

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

    def terms(self) -> list[tuple[Key, NDArray[np.float64]]]:
        """The four terms of each group."""
        return [(key, self.fit.theta[i * WIDTH : (i + 1) * WIDTH]) for key, i in self._slots.items()]


def group_terms(models: Iterable[DeviceModel], now_ns: int) -> list[ModelTerms]:
    """The fitted terms of each energy group, summed over its devices; none where nothing was fitted."""
    sums: dict[Key, NDArray[np.float64]] = {}
    idle: dict[Key, float] = {}
    of: dict[Key, DeviceModel] = {}
    for model in models:
        for key, terms in model.terms():
            if model.fit.variance is not None:
                sums[key] = sums.get(key, np.zeros(WIDTH)) + terms
                idle[key] = idle.get(key, 0.0) + float(model.fit.theta[-1])
                of[key] = model
    return [
        ModelTerms(
            group=",".join(part for part in key if part),
            static_j=float(terms[0]),
            decode_j=float(terms[1]),
            context_j=float(terms[2]),
            prefill_j=float(terms[3]),
            idle_w=idle[key],
            r2=of[key].fit.r2,
            windows=of[key].fit.windows,
            age_s=max(now_ns - of[key].learned_ns, 0) / 1e9,
            prior=not of[key].fit.mature,
        )
        for key, terms in sums.items()
    ]
