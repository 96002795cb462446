"""Fit one profile to the published points of one setting.

A step's time is linear in ``[1, streams, experts touched, host]`` and in the prompts computed meanwhile; the
median ITL has few of the latter, throughput all of them, which tells them apart. Joules likewise. Fitted to
steady states in closed form first; then what the simulator itself makes of them is measured, and the
difference (queueing, preemption, the spread of lengths) taken out.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from proxy.simulator.gpu.datasheets import GPUS
from proxy.simulator.profiles.profile import Costs, Experts, Profile
from tests.calibration import least_squares
from tests.calibration.least_squares import Floats
from tests.calibration.models import limits, shape, short_name, workload
from tests.calibration.point_errors import TARGETS, compare
from tests.calibration.published import Point, Setting
from tests.calibration.roofline import mean_context, typical_prompts

PUBLISHED: Final = "ML.ENERGY Leaderboard v3 (arXiv 2601.22076)"
_CACHE_BANDWIDTH: Final = 0.8  # of the data sheet's, for reading keys and values
_MOST_CONTEXT: Final = 0.6  # of what grows with the streams, at most so much is reading their context
# Power while prompts are computed, in terms of the highest mean power published for the setting: the tables
# do not tell it from what else grows with the streams. The first that fits about as well as the best counts.
_PREFILL_POWER: Final = (0.95, 0.75, 0.55, 0.4, 0.25)
_MOST_PROMPT: Final = 8.0  # times the operations of a prompt at peak
_TEXT: Final = ("lm-arena-chat", "gpqa")
_CLOSE: Final = 0.005
_LEAST: Final = 0.02  # of a step's joules is left for decoding
_WORTH: Final = 0.02  # by which a jump must lower the mean error of time
_POINTS_FOR_JUMP: Final = 5
_MOST_JUMPS: Final = 3
# Runs were published only if at least 85 % of the streams ran on average: the cache holds about those.
_KEPT: Final = 0.92
_CAUTION: Final = 0.7  # of a difference, so much is corrected at a time
_MOST_CORRECTION: Final = 2.0


@dataclass(frozen=True, slots=True)
class _Targets:
    """A step's seconds, its median gap and joules, point by point."""

    steps: Floats
    gaps: Floats
    joules: Floats

    @classmethod
    def of(cls, points: Sequence[Point]) -> "_Targets":
        """As published."""
        return cls(
            np.array([p.seconds_per_step for p in points]),
            np.array([p.median_itl_seconds for p in points]),
            np.array([p.joules_per_token * p.batch for p in points]),
        )

    def within(self, wanted: "_Targets") -> "_Targets":
        """Not further from what is published than a factor: what noise asks for is not followed for ever."""

        def bound(now: Floats, then: Floats) -> Floats:
            return np.clip(now, then / _MOST_CORRECTION, then * _MOST_CORRECTION)

        return _Targets(
            bound(self.steps, wanted.steps), bound(self.gaps, wanted.gaps), bound(self.joules, wanted.joules)
        )


@dataclass(frozen=True, slots=True)
class _Found:
    graph_streams: int | None
    seconds: Floats  # static, stream, experts, host, prompt
    joules: Floats  # static, stream, experts, host
    prompt_joules: float
    error: float


def fit(setting: Setting, points: Sequence[Point], origin: str = PUBLISHED, rounds: int = 4) -> Profile:
    """The profile closest to the points as simulated, of those found with and without a jump."""
    jumps: list[int | None] = [None]
    if len(points) >= _POINTS_FOR_JUMP:
        targets = _Targets.of(points)
        plain = _fit(setting, points, targets, None)
        found = [_fit(setting, points, targets, point.batch) for point in points[:-1]]
        helpful = [each for each in found if each.error < plain.error - _WORTH]
        jumps += [each.graph_streams for each in sorted(helpful, key=lambda each: each.error)[:_MOST_JUMPS]]
    tried = [found for jump in jumps for found in _rounds(setting, points, jump, rounds)]
    best_of_all = min(tried, key=lambda found: found[0])[1]
    return replace(best_of_all, source=_source(setting, points, origin))


def _rounds(
    setting: Setting, points: Sequence[Point], jump: int | None, rounds: int
) -> list[tuple[float, Profile]]:
    """Fit, simulate, correct, again; each profile with how far it is from the points."""
    wanted = targets = _Targets.of(points)
    tried = []
    for _ in range(rounds):
        profile = _profile(setting, points, _fit(setting, points, targets, jump))
        errors = compare(profile, workload(setting.task), points)
        off = errors.medians / TARGETS
        tried.append((float(off.max() + off.mean()), profile))
        step = (1 + errors.throughput) ** _CAUTION
        gap = (1 + errors.itl) ** -_CAUTION
        joule = (1 + errors.joules_per_token) ** -_CAUTION
        targets = _Targets(targets.steps * step, targets.gaps * gap, targets.joules * joule)
        targets = targets.within(wanted)
    return tried


def _fit(setting: Setting, points: Sequence[Point], targets: _Targets, jump: int | None) -> _Found:
    batch = np.array([p.batch for p in points], dtype=np.float64)
    prompts = batch / np.array([p.output_tokens for p in points])
    typical = np.array([typical_prompts(each) for each in prompts])
    experts = shape(setting.model).experts
    columns = np.column_stack([np.ones_like(batch), batch, _touched(experts, points), _above(jump, batch)])
    both = np.vstack([columns, columns])
    computed = np.concatenate([prompts, typical])
    measured = np.concatenate([targets.steps, targets.gaps])
    seconds = least_squares.fit(np.column_stack([both, computed]), measured)
    low, high = _prompt_bounds(setting)
    if not low <= seconds[-1] <= high:
        prompt = float(np.clip(seconds[-1], low, high))
        rest = np.maximum(measured - prompt * computed, _LEAST * measured)
        seconds = np.append(least_squares.fit(both, rest), prompt)
    both = np.column_stack([both, computed])
    powered = targets.joules / targets.steps * (both @ seconds)[: len(points)]  # at the published power
    wanted = np.concatenate([targets.joules, powered])
    twice, busy = np.vstack([columns, columns]), np.concatenate([prompts, prompts]) * float(seconds[-1])
    highest = max(p.watts for p in points)
    tried = []
    for share in _PREFILL_POWER:
        left = np.maximum(wanted - share * highest * busy, _LEAST * wanted)
        joules = least_squares.fit(twice, left)
        error = least_squares.error(
            np.column_stack([twice, busy]), wanted, np.append(joules, share * highest)
        )
        tried.append((error, share * highest * float(seconds[-1]), joules))
    least = min(error for error, _, _ in tried)
    _, prompt_joules, joules = next(each for each in tried if each[0] < least + _CLOSE)
    return _Found(jump, seconds, joules, prompt_joules, least_squares.error(both, measured, seconds))


def _prompt_bounds(setting: Setting) -> tuple[float, float]:
    """Least and most seconds of a prompt: its operations at the GPUs' peak, and some times that.

    Where answers are long, the tables hardly tell prompts' time from noise. With pictures and films, and
    where copies share the work, other costs come with a prompt, of which no most is known.
    """
    gpu, model = GPUS[setting.gpu], setting.model
    least = 2 * model.active * workload(setting.task).prompt_tokens / (gpu.flops * setting.gpus)
    if model.precision == "fp8":
        least /= 2
    return least, least * _MOST_PROMPT if setting.task in _TEXT else float("inf")


def _touched(experts: Experts | None, points: Sequence[Point]) -> Floats:
    return np.array([experts.touched(p.batch) if experts is not None else 0.0 for p in points])


def _above(jump: int | None, batch: Floats) -> Floats:
    return np.zeros_like(batch) if jump is None else (batch > jump).astype(np.float64)


def _profile(setting: Setting, points: Sequence[Point], found: _Found) -> Profile:
    gpu, model, work = GPUS[setting.gpu], setting.model, workload(setting.task)
    context = float(np.mean([mean_context(work, p.output_tokens) for p in points]))
    reading = shape(model).kv_bytes / (_CACHE_BANDWIDTH * gpu.bandwidth * setting.gpus)
    watts = max(p.watts for p in points)
    held = limits(setting, 256)
    costs = []
    for once, stream, experts, host, prompt, each in (
        (*map(float, found.seconds), reading),
        (*map(float, found.joules), found.prompt_joules, reading * watts),
    ):
        token = min(each, _MOST_CONTEXT * stream / context)
        costs.append(Costs(once, stream - token * context, token, prompt / work.prompt_tokens, experts, host))
    return Profile(
        model=short_name(model),
        device=f"{gpu.name} (simulated)",
        devices=setting.gpus,
        idle_watts=gpu.idle_watts * setting.gpus,
        cap_watts=gpu.limit_watts * setting.gpus,
        experts=shape(model).experts,
        graph_streams=found.graph_streams,
        seconds=costs[0],
        joules=costs[1],
        limits=replace(held, kv_tokens=max(held.kv_tokens, round(_KEPT * points[-1].batch * context))),
    )


def _source(setting: Setting, points: Sequence[Point], origin: str) -> str:
    return (
        f"fitted to {len(points)} points of {setting.model.name}, {setting.task}, on {setting.gpus} "
        f"{setting.gpu}: {origin}. Assumed: prompts of "
        f"{workload(setting.task).prompt_tokens} tokens, idle power, the split of context from decode."
    )
