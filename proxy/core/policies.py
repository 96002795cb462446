"""Policies: rules by which measured energy is shared. All have one pure signature.

``overlap``  each instant equally over the requests active in it; needs nothing.
``tokens``   busy energy by tokens computed and emitted, where they were.
``steps``    by the engine's rebuilt steps and the fitted cost of what happened in them (the default).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from proxy.core.activity.tracks import Group, Track
from proxy.core.activity.work import (
    SECONDS,
    WIDTH,
    Floats,
    Ints,
    Work,
    covered_seconds,
    in_windows,
    over_cells,
)
from proxy.core.fit.model import EnergyModel
from proxy.core.reconstruct.cells import EngineProfile
from proxy.core.reconstruct.engine_steps import engine_steps
from proxy.core.reconstruct.overlap import overlap
from proxy.core.reconstruct.steps import steps

_STEPS_OF_A_WINDOW: Final = 16.0  # measured on truth engines: 8 leave attenuation, clean ones lose nothing
_LEAST_TERM: Final = 1e-6  # of fixed terms: a smaller one only divides time in which nothing was seen


@dataclass(frozen=True, slots=True)
class Split:
    """How one device's windows are divided.

    For each work its terms (5,), and for its cells (C,) the scale (measured over modelled; ``ratio`` (W,) is
    the same by window) and the misfit (squared relative mismatch of model and meter). ``requests`` (W,): the
    joules of each window that go to requests; the rest is idle. ``unsure``: for each work, which of its terms
    are not told from the others by the data, (4,): their parts are not known one by one. ``guesses``: for the
    cells (C,) of each work, the share of the energy that is guessed (None: none is), of which ``foreign`` did
    not pass through. ``idle``: seconds without work, scaled as the cells are; None: the terms are not fitted.
    """

    terms: list[Floats]
    unsure: list[NDArray[np.bool_]]
    scales: list[Floats]
    misfits: list[Floats]
    ratio: Floats
    requests: Floats
    guesses: list[Floats | None]
    foreign: float
    idle: float | None = None


@dataclass(frozen=True, slots=True)
class Block:
    """One device's windows, edges (W + 1,) ns and joules (W,), and the works on it.

    ``totals``: the features of each work's cells, (C, 5); ``slots`` index the device's model. ``known``:
    which windows were measured, (W,); those in a gap hold no joules, and teach nothing. ``foreign``: the
    share of each window's energy that was taken from it for work that did not pass through, (W,).
    """

    edges: Ints
    joules: Floats
    works: Sequence[Work]
    totals: Sequence[Floats]
    slots: Sequence[int]
    known: NDArray[np.bool_]
    foreign: Floats


class Policy(Protocol):
    """A rule of sharing. Holds nothing but what it learned of the engines, in :class:`EngineProfile`."""

    name: str
    evidence: str
    needs_usage: bool

    def work(self, group: Group, tracks: Sequence[Track], start_ns: int, end_ns: int) -> Work:
        """Return the work of the group in [start_ns, end_ns)."""

    def split(self, model: EnergyModel, block: Block) -> Split:
        """Divide the windows of a device among the works on it."""

    def forget(self, group: Group) -> None:
        """Drop what was learned of an engine that turned out to be none."""


class Overlap:
    """Policy ``overlap``."""

    name = "overlap"
    evidence = "arrivals"
    needs_usage = False

    def work(self, group: Group, tracks: Sequence[Track], start_ns: int, end_ns: int) -> Work:
        """Cells between arrivals and ends."""
        del group
        return overlap(tracks, start_ns, end_ns)

    def split(self, model: EnergyModel, block: Block) -> Split:
        """By active request seconds; idle by time."""
        del model
        return _split_by_time(block, np.array([1.0, 0.0, 0.0, 0.0, 0.0]))

    def forget(self, group: Group) -> None:
        """Do nothing: nothing is learned."""


class _Stepwise:
    """Base of ``tokens`` and ``steps``: the reconstructed steps of each group."""

    evidence = "chunks"
    needs_usage = True

    def __init__(self) -> None:
        self._profiles: dict[tuple[str, ...], EngineProfile] = {}

    def work(self, group: Group, tracks: Sequence[Track], start_ns: int, end_ns: int) -> Work:
        """Reconstruct the engine's steps, or use those it reports."""
        profile = self._profiles.setdefault(group.key, EngineProfile())
        for track in tracks:
            if track.end is not None and track.end.prompt_tokens is not None:
                profile.see_prompt(track.end.prompt_tokens)
        rebuild = engine_steps if group.steps else steps
        return rebuild(group, tracks, start_ns, end_ns, profile)

    def forget(self, group: Group) -> None:
        """Drop the profile of an engine."""
        self._profiles.pop(group.key, None)


class Tokens(_Stepwise):
    """Policy ``tokens``."""

    name = "tokens"

    def split(self, model: EnergyModel, block: Block) -> Split:
        """By tokens computed and emitted; silence counts next to nothing; idle by time."""
        del model
        return _split_by_time(block, np.array([1e-9, 1.0, 0.0, 1.0, 0.0]))


class Steps(_Stepwise):
    """Policy ``steps``."""

    name = "steps"

    def split(self, model: EnergyModel, block: Block) -> Split:
        """By the fitted terms; they are fitted to these windows first."""
        joules, seconds = block.joules, np.diff(block.edges) / 1e9
        happened = np.zeros((len(joules), model.groups * WIDTH + 1))
        for slot, work, totals in zip(block.slots, block.works, block.totals, strict=True):
            happened[:, slot * WIDTH : (slot + 1) * WIDTH] = in_windows(work, totals, block.edges)
        happened[:, -1] = np.clip(seconds - covered_seconds(block.works, block.edges), 0.0, None)
        known = block.known
        model.learn(*_merged(block, happened[known], joules[known], seconds[known]))
        theta = model.theta
        busy = happened[:, :-1] @ theta[:-1]
        modelled = busy + happened[:, -1] * theta[-1]
        ratio = np.divide(joules, modelled, out=np.zeros_like(joules), where=modelled > 0.0)
        own = [slice(slot * WIDTH, (slot + 1) * WIDTH) for slot in block.slots]
        for slot, work, totals in zip(block.slots, block.works, block.totals, strict=True):
            model.see_parts(slot, totals[:, :SECONDS].sum(axis=0), work.part_seconds())
        unsure = [model.unsure(slot) for slot in block.slots]
        split = _split(block, [theta[o] for o in own], unsure, ratio, ratio * busy)
        return replace(split, idle=float(ratio @ happened[:, -1]))


def _merged(block: Block, happened: Floats, joules: Floats, seconds: Floats) -> tuple[Floats, Floats, Floats]:
    """Merge windows so that each holds several steps, for the fit.

    Which window a prompt is in is known to about a step. In windows of few steps such errors make the work
    look unrelated to the energy, and the fit would put all of it on the seconds, which are never wrong.
    """
    lengths = [(work.cell_end - work.cell_start).astype(float) for work in block.works]
    steps = np.concatenate(lengths) if lengths else np.empty(0)
    if not len(steps) or not len(joules):
        return happened, joules, seconds
    least = _STEPS_OF_A_WINDOW * float(np.average(steps, weights=steps)) / 1e9
    group = np.floor((np.cumsum(seconds) - seconds) / least).astype(np.int64)
    starts = np.flatnonzero(np.diff(group, prepend=-1))
    return (
        np.add.reduceat(happened, starts),
        np.add.reduceat(joules, starts),
        np.add.reduceat(seconds, starts),
    )


def _split_by_time(block: Block, terms: Floats) -> Split:
    """Idle energy by the time no request was in the engine; the rest by fixed terms (5,)."""
    seconds = np.diff(block.edges) / 1e9
    busy_seconds = np.minimum(covered_seconds(block.works, block.edges), seconds)
    # Avoid floating-point residue in the idle account where a window is covered completely.
    whole = np.isclose(busy_seconds, seconds, rtol=1e-12, atol=0.0)
    busy = block.joules * np.where(whole, 1.0, busy_seconds / seconds)
    weight = np.zeros(len(busy))
    for work, totals in zip(block.works, block.totals, strict=True):
        weight += in_windows(work, totals, block.edges) @ terms
    ratio = np.divide(busy, weight, out=np.zeros_like(busy), where=weight > 0.0)
    unknown = terms[:SECONDS] < _LEAST_TERM  # the rule gives these parts no joules: it does not know them
    count = len(block.works)
    return _split(block, [terms] * count, [unknown] * count, ratio, ratio * weight)


def _split(
    block: Block, terms: list[Floats], unsure: list[NDArray[np.bool_]], ratio: Floats, requests: Floats
) -> Split:
    usual = float(np.average(ratio, weights=requests)) if requests.any() else 1.0
    misfit = (ratio / usual - 1.0) ** 2
    guess = _guessed(block, terms, ratio, requests)
    foreign = float(np.average(block.foreign, weights=requests)) if requests.any() else 0.0
    return Split(
        terms,
        unsure,
        [over_cells(work, block.edges, ratio) for work in block.works],
        [over_cells(work, block.edges, misfit) for work in block.works],
        ratio,
        requests,
        [None if guess is None else over_cells(work, block.edges, guess) for work in block.works],
        foreign,
    )


def _guessed(block: Block, terms: list[Floats], ratio: Floats, requests: Floats) -> Floats | None:
    """The share of each window's energy that is guessed, (W,): unread requests, prompts, foreign work."""
    features = [work.guessed_features() for work in block.works]
    if not block.foreign.any() and all(guessed is None for guessed in features):
        return None
    joules = np.zeros(len(ratio))
    for work, guessed, own in zip(block.works, features, terms, strict=True):
        if guessed is not None:
            joules += ratio * (in_windows(work, guessed, block.edges) @ own)
    unread = np.divide(joules, requests, out=np.zeros_like(joules), where=requests > 0.0)
    return np.asarray(1.0 - (1.0 - np.clip(unread, 0.0, 1.0)) * (1.0 - block.foreign), dtype=float)


POLICIES: Final[dict[str, type[Policy]]] = {"steps": Steps, "tokens": Tokens, "overlap": Overlap}


def policy_named(name: str) -> Policy:
    """A fresh policy; raises ``ValueError`` naming the known ones."""
    if name not in POLICIES:
        raise ValueError(f"policy {name!r} is not one of {', '.join(POLICIES)}")
    return POLICIES[name]()
