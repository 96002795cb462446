"""Policies: rules by which measured energy is shared. All have one pure signature.

``overlap``  each instant equally over the requests active in it; needs nothing.
``tokens``   busy energy by tokens computed and emitted, where they were.
``steps``    by the engine's rebuilt steps and the fitted cost of what happened in them (the default).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np

from proxy.core.model import EnergyModel
from proxy.core.overlap import overlap
from proxy.core.steps import Habits, steps
from proxy.core.tracks import Group, Track
from proxy.core.work import WIDTH, Floats, Ints, Work, covered_seconds, in_windows, scale_of_cells


@dataclass(frozen=True, slots=True)
class Split:
    """How one device's windows are divided: for each work its terms (4,) and cell scales (C,).

    ``requests`` (W,) joules of each window that go to requests; the rest is idle. ``noise`` (W,): the
    relative mismatch of model and meter in each window.
    """

    terms: list[Floats]
    scales: list[Floats]
    requests: Floats


class Policy(Protocol):
    """A rule of sharing. Holds nothing but what it learned of the engines, in :class:`Habits`."""

    name: str
    evidence: str
    needs_usage: bool

    def work(self, group: Group, tracks: Sequence[Track], start_ns: int, end_ns: int) -> Work:
        """What the group did in [start_ns, end_ns)."""

    def split(
        self, model: EnergyModel, edges: Ints, joules: Floats, works: Sequence[Work], slots: Sequence[int]
    ) -> Split:
        """Divide windows (edges (W + 1,), joules (W,)) of a device among works; ``slots`` index its model."""


class Overlap:
    """Policy ``overlap``."""

    name = "overlap"
    evidence = "arrivals"
    needs_usage = False

    def work(self, group: Group, tracks: Sequence[Track], start_ns: int, end_ns: int) -> Work:
        """Cells between arrivals and ends."""
        del group
        return overlap(tracks, start_ns, end_ns)

    def split(
        self, model: EnergyModel, edges: Ints, joules: Floats, works: Sequence[Work], slots: Sequence[int]
    ) -> Split:
        """By active request seconds; idle by time."""
        del model, slots
        return split_by_time(edges, joules, works, [np.array([1.0, 0.0, 0.0, 0.0])] * len(works))


class _Stepwise:
    """What ``tokens`` and ``steps`` share: the rebuilt steps of each group."""

    evidence = "chunks"
    needs_usage = True

    def __init__(self) -> None:
        self._habits: dict[tuple[str, ...], Habits] = {}

    def work(self, group: Group, tracks: Sequence[Track], start_ns: int, end_ns: int) -> Work:
        """The engine's steps."""
        habits = self._habits.setdefault(group.key, Habits())
        for track in tracks:
            if track.end is not None and track.end.prompt_tokens is not None:
                habits.see_prompt(track.end.prompt_tokens)
        return steps(tracks, group.outputs, start_ns, end_ns, habits)


class Tokens(_Stepwise):
    """Policy ``tokens``."""

    name = "tokens"

    def split(
        self, model: EnergyModel, edges: Ints, joules: Floats, works: Sequence[Work], slots: Sequence[int]
    ) -> Split:
        """By tokens computed and emitted; silence counts next to nothing; idle by time."""
        del model, slots
        return split_by_time(edges, joules, works, [np.array([1e-9, 1.0, 0.0, 1.0])] * len(works))


class Steps(_Stepwise):
    """Policy ``steps``."""

    name = "steps"

    def split(
        self, model: EnergyModel, edges: Ints, joules: Floats, works: Sequence[Work], slots: Sequence[int]
    ) -> Split:
        """By the fitted terms; they are fitted to these windows first."""
        seconds = np.diff(edges) / 1e9
        happened = np.zeros((len(joules), model.groups * WIDTH + 1))
        for slot, work in zip(slots, works, strict=True):
            happened[:, slot * WIDTH : (slot + 1) * WIDTH] = in_windows(work, edges)
        happened[:, -1] = np.clip(seconds - covered_seconds(works, edges), 0.0, None)
        model.learn(happened, joules, seconds)
        theta = model.theta
        busy = happened[:, :-1] @ theta[:-1]
        modelled = busy + happened[:, -1] * theta[-1]
        ratio = np.divide(joules, modelled, out=np.zeros_like(joules), where=modelled > 0.0)
        terms = [theta[slot * WIDTH : (slot + 1) * WIDTH] for slot in slots]
        return Split(terms, [scale_of_cells(work, edges, ratio) for work in works], ratio * busy)


def split_by_time(edges: Ints, joules: Floats, works: Sequence[Work], terms: list[Floats]) -> Split:
    """Idle energy by the time no request was in the engine; the rest by the works' fixed terms."""
    seconds = np.diff(edges) / 1e9
    busy_seconds = np.minimum(covered_seconds(works, edges), seconds)
    # A window covered whole leaves no idle crumb of rounding.
    whole = np.isclose(busy_seconds, seconds, rtol=1e-12, atol=0.0)
    busy = joules * np.where(whole, 1.0, busy_seconds / seconds)
    weight = np.zeros(len(joules))
    for work, term in zip(works, terms, strict=True):
        weight += in_windows(work, edges) @ term
    ratio = np.divide(busy, weight, out=np.zeros_like(busy), where=weight > 0.0)
    return Split(terms, [scale_of_cells(work, edges, ratio) for work in works], ratio * weight)


POLICIES: Final[dict[str, type[Policy]]] = {"steps": Steps, "tokens": Tokens, "overlap": Overlap}


def policy_named(name: str) -> Policy:
    """A fresh policy; raises ``ValueError`` naming the known ones."""
    if name not in POLICIES:
        raise ValueError(f"policy {name!r} is not one of {', '.join(POLICIES)}")
    return POLICIES[name]()
