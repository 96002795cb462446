"""Which devices are whose: the engine whose work explains the energy of a device.

The energy of each device, window by window, is regressed on the work of each engine alone, as the final fit
does (``model``). Replicas are busy at different times with different prompts, so the residual of the right
engine is far smaller than that of the others.
"""

from collections.abc import Sequence
from itertools import permutations
from typing import Final

import numpy as np

from proxy.core.activity.tracks import Group, Track
from proxy.core.activity.work import Floats, Work, covered_seconds, in_windows
from proxy.core.energy.accounts import Account
from proxy.core.numerics.nonnegative import nonnegative

_LEAST_WINDOWS: Final = 30
_UNLIKE: Final = (
    0.04  # mean relative difference of two devices' windows; those of one engine are assumed nearer
)
_VARIES: Final = 0.5  # of their own variation: devices of one engine vary together
_ALIKE: Final = 0.3  # of the difference from which devices are unlike: less shows that they work in step
_FEW_WINDOWS: Final = 10
_CLEARLY: Final = 0.6  # the residual of the right engine, as a share of that of the next best

GroupWork = tuple[Group, list[Track], Work]


def devices_of_engines(
    devices: Sequence[str], works: Sequence[GroupWork], accounts: Sequence[Account], end_ns: int
) -> list[tuple[str, ...]] | None:
    """Return the devices of each engine, or None where the energy does not distinguish them.

    Args:
        devices: of the backend.
        works: of each engine in the windows that are to be closed.
        accounts: of the devices that have readings.
        end_ns: until when windows are to be closed.
    """
    by_name = {account.device: account for account in accounts}
    if any(device not in by_name for device in devices):
        return None
    residuals = np.array([[_residual(by_name[d], work, end_ns) for _, _, work in works] for d in devices])
    owner = _matched(residuals) if len(devices) == len(works) else _nearest(residuals)
    if owner is None or len(set(owner)) < len(works):
        return None
    return [tuple(d for d, of in zip(devices, owner, strict=True) if of == e) for e in range(len(works))]


def are_unlike(devices: Sequence[str], accounts: Sequence[Account], end_ns: int) -> bool | None:
    """Return whether the energy of devices varies too differently for one engine on all; None: unclear.

    The devices of one tensor-parallel engine work in step. Where several devices do not, and the engines were
    not found, it is unknown on which of them a request was.
    """
    own = [account for account in accounts if account.device in devices]
    if len(own) < 2:
        return None
    series = [account.series for account in own]
    edges, _ = series[0].windows(own[0].closed_ns or 0, end_ns)
    known = ~np.any([one.in_gaps(edges) for one in series], axis=0)
    stamps = edges.tolist()
    joules = np.diff([[one.joules_at(t_ns) for t_ns in stamps] for one in series], axis=1)[:, known]
    if joules.shape[1] < _FEW_WINDOWS:
        return None
    relative = joules / np.maximum(joules.mean(axis=1, keepdims=True), 1e-12)
    difference = float(np.abs(relative - relative[0]).mean(axis=1).max())
    bound = max(_UNLIKE, _VARIES * float(np.abs(relative - 1.0).mean()))
    if difference > bound:
        return True
    return False if difference < _ALIKE * bound else None


def _nearest(residuals: Floats) -> list[int] | None:
    """Return the engine of each device whose work explains it best, (D,), if all are clear.

    Args:
        residuals: of each device by the work of each engine, (D, E).
    """
    ordered = np.sort(residuals, axis=1)
    if not (ordered[:, 0] < _CLEARLY * ordered[:, 1]).all():
        return None
    return [int(engine) for engine in np.argmin(residuals, axis=1)]


def _matched(residuals: Floats) -> list[int] | None:
    """Return the engine of each device, (D,), one for one, if no other matching is nearly as good."""
    size = len(residuals)
    rows = np.arange(size)
    logs = np.log(np.maximum(residuals, 1e-30))
    sums = sorted((float(logs[rows, list(order)].sum()), order) for order in permutations(range(size)))
    (best, owner), (second, _) = sums[:2]
    return list(owner) if best < second + np.log(_CLEARLY) else None


def _residual(account: Account, work: Work, end_ns: int) -> float:
    """Return the mean squared residual of a device's windows, explained by one engine's work."""
    edges, cumulative = account.series.windows(account.closed_ns or 0, end_ns)
    seconds, joules = np.diff(edges) / 1e9, np.diff(cumulative)
    known = ~account.series.in_gaps(edges) & (seconds > 0.0)
    if np.count_nonzero(known) < _LEAST_WINDOWS:
        return np.nan
    idle = np.clip(seconds - covered_seconds([work], edges), 0.0, None)
    rows = np.concatenate([in_windows(work, work.features(), edges), idle[:, None]], axis=1)
    return _least_squares(rows[known], joules[known], 1.0 / np.sqrt(seconds[known]))


def _least_squares(rows: Floats, joules: Floats, weight: Floats) -> float:
    rows, joules = rows * weight[:, None], joules * weight
    unit = np.maximum(np.sqrt((rows**2).sum(axis=0)), 1e-12)
    rows = rows / unit
    terms = nonnegative(rows.T @ rows + 1e-9 * np.eye(rows.shape[1]), rows.T @ joules)
    return float(np.mean((joules - rows @ terms) ** 2))
