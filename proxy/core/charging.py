"""Charging: one device's windows divided among the requests on it, and booked in its account."""

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from proxy.core.activity.tracks import Charge, Group, Role, Track
from proxy.core.activity.work import Allocation, Floats, Ints, Work, in_windows, rounding, share
from proxy.core.energy.accounts import Account
from proxy.core.fit.device_model import DeviceModel
from proxy.core.fit.term_doubt import term_doubts
from proxy.core.jobs import is_job
from proxy.core.policies import Block, Policy, Split

# Standard deviation, of the joules, where several engines share the device: their work goes together.
# Measured: two engines that take turns have a median error of up to 6 % in seven runs.
_BESIDE: Final = 0.05

# Standard deviation, of the joules, where a backend's devices do not work in step and its engines were not
# found. Measured: median errors of 7 to 17 %, 95th percentiles of 22 to 41 %.
_UNRESOLVED: Final = 0.17

# Likewise where prefill and decode are apart: steps of the prefill engine are seen only where they complete a
# prompt. Measured: median errors of 1.2 to 2.1 %, 95th percentiles of 4 to 9 %.
_APART: Final = 0.015

# Likewise of a request of which no chunk shows the replica that served it (assumed).
_GUESSED: Final = 0.5

GroupWork = tuple[Group, list[Track], Work]


def divide(
    account: Account, model: DeviceModel, policy: Policy, works: Sequence[GroupWork], end_ns: int
) -> None:
    """Close the windows of one device up to ``end_ns``: charge the requests on it, and book the rest.

    Work that did not pass through, and jobs whose joules are not known, are unattributed. The requests are
    charged exactly what the account books for requests.
    """
    edges, cumulative = account.series.windows(account.closed_ns or 0, end_ns)
    measured = np.diff(cumulative)
    foreign = account.outside.of(edges)
    unattributed = measured * foreign
    here = [w for w in works if account.device in w[0].devices]
    slots = [model.slot(group.key) for group, _, _ in here]
    totals = [work.features() for _, _, work in here]
    known = ~account.series.in_gaps(edges)
    block = Block(edges, measured - unattributed, [w for _, _, w in here], totals, slots, known, foreign)
    split = policy.split(model.fit, block)
    model.learned_ns = end_ns
    columns = (split.terms, split.scales, split.misfits, split.guesses)
    found = [
        share(work, total, terms, scale, misfit, guess, split.foreign)
        for (_, _, work), total, terms, scale, misfit, guess in zip(here, totals, *columns, strict=True)
    ]
    doubts = [np.zeros(len(allocation.life)) for allocation in found]
    if split.idle is not None:
        doubts = term_doubts(model.fit, block.works, slots, split.scales, split.idle)
    if len(here) > 1:
        doubts = [
            doubt + _BESIDE * allocation.parts.sum(axis=1)
            for doubt, allocation in zip(doubts, found, strict=True)
        ]
    doubts = [
        doubt + _engine_doubts(group, tracks) * allocation.parts.sum(axis=1)
        for (group, tracks, _), doubt, allocation in zip(here, doubts, found, strict=True)
    ]
    exact = rounding(float(split.requests.sum()), sum(float(allocation.parts.sum()) for allocation in found))
    of_jobs = np.zeros_like(measured)
    for index, ((_, tracks, work), allocation) in enumerate(zip(here, found, strict=True)):
        jobs = np.array([is_job(track) for track in tracks])
        if jobs.any():
            joules = exact * float(allocation.parts[jobs].sum())
            of_jobs += _spread(joules, work, jobs, edges, split, index)
        _charge(
            account.device,
            here[index],
            allocation,
            exact,
            split.unsure[index],
            ~jobs,
            model.youth,
            doubts[index],
        )
    of_jobs = np.minimum(of_jobs, split.requests)
    requests = split.requests - of_jobs if exact else np.zeros_like(measured)
    account.book(edges, measured, requests, unattributed + of_jobs)
    account.outside.forget(end_ns)
    account.series.forget(end_ns)


def _engine_doubts(group: Group, tracks: Sequence[Track]) -> Floats:
    """Return the standard deviation of each request, (R,), of its joules, by what is not known of engines."""
    common = _APART if group.role is not Role.BOTH else 0.0
    if group.unresolved:
        common = _UNRESOLVED
    return np.array([_GUESSED if track.engine_guessed else common for track in tracks])


def _spread(
    joules: float, work: Work, jobs: NDArray[np.bool_], edges: Ints, split: Split, index: int
) -> Floats:
    """The joules of jobs by window, (W,), as the work of jobs (R,) lies in them."""
    modelled = in_windows(work, work.features_of(jobs), edges) @ split.terms[index] * split.ratio
    total = float(modelled.sum())
    return np.asarray(modelled * (joules / total if total > 0.0 else 0.0), dtype=float)


def _charge(
    device: str,
    group_work: GroupWork,
    allocation: Allocation,
    exact: float,
    unsure: NDArray[np.bool_],
    whose: NDArray[np.bool_],
    youth: float,
    doubt: Floats,
) -> None:
    """Charge the requests ``whose`` (R,) of one group what they got on one device, times ``exact``."""
    _, tracks, work = group_work
    parts = allocation.parts * exact
    joules = parts.sum(axis=1)
    hidden = np.tile(unsure, (len(tracks), 1))
    if work.unread is not None:
        hidden[work.unread] = True  # what an unread request did is not known in parts
    rows = np.stack([joules, allocation.life, allocation.misfit, allocation.guessed, doubt], axis=1).tolist()
    for index in np.flatnonzero((allocation.life + joules) * whose).tolist():
        track = tracks[index]
        own, life, misfit, guessed, unsure_joules = rows[index]
        charge = track.charges.setdefault(device, Charge())
        charge.add(own, life, misfit, youth, guessed, unsure_joules)
        track.parts += parts[index]
        track.unsure |= hidden[index]
