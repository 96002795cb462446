"""Part d: the form that time and energy of a step follow on this device.

Steps of many sizes are measured and fitted by the same form that the simulated engines have
(:mod:`proxy.truth.machine`)::

    length = overhead + (memory^p + compute^p)^(1/p)      memory = weights + context * c, compute = tokens * t
    joules = watts * length + memory_watts * memory + compute_watts * compute

Each p of ``EXPONENTS`` is fitted; the smallest residual is the form. ``Form`` has the constants under the
names of ``Machine``, so that a simulated engine can take them.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from proxy.gpu.composition import Composition, Work
from proxy.gpu.measured import CostMeter

Floats = NDArray[np.float64]

EXPONENTS: Final = (1.0, 1.5, 2.0, 3.0, 5.0, math.inf)
_ROUNDS: Final = 200
_LEAST_GAIN: Final = 1e-12


@dataclass(frozen=True, slots=True)
class Point:
    """One measured composition."""

    tokens: int
    context: int
    seconds: float
    joules: float
    error: float


@dataclass(frozen=True, slots=True)
class Form:
    """Constants of one form, and its root mean square relative residual in time and in energy."""

    overlap: float
    overhead_s: float
    weights_s: float
    context_s: float
    token_s: float
    watts: float
    memory_watts: float
    compute_watts: float
    time_residual: float
    energy_residual: float


def grid(slots: int, length: int, largest_chunk: int) -> list[Composition]:
    """Return the steps to measure: decoding only, prompts only, and both."""
    deep = length // 2
    steps = []
    for count in [c for c in (1, 2, 4, 8, 16, 32, 64) if c <= slots]:
        steps += [Composition.of([Work(1, context)] * count) for context in (32, deep)]
    chunks = [c for c in (16, 64, 128, 256, 512, 1024, 2048) if c <= min(largest_chunk, length)]
    steps += [Composition.of([Work(chunk, 0)]) for chunk in chunks]
    several = min(8, slots - 1)
    steps += [Composition.of([Work(1, deep)] * several + [Work(chunk, 0)]) for chunk in chunks]
    return steps


def sweep(meter: CostMeter, steps: Sequence[Composition]) -> list[Point]:
    """Measure all steps, in random order."""
    meter.plan(steps)
    costs = [(step, meter.measure(step)) for step in steps]
    return [Point(s.tokens, s.context, c.seconds, c.joules.mean, c.joules.error) for s, c in costs]


def fit(points: Sequence[Point]) -> list[Form]:
    """Return the best form of each exponent, that with the smallest residual of time first."""
    return sorted((_fitted(points, p) for p in EXPONENTS), key=lambda form: form.time_residual)


def static_share(meter: CostMeter, context: int, count: int = 8) -> float:
    """Return the part of a step of ``count`` equal decoding requests that does not depend on their number.

    From steps of one and of ``count`` requests, by a straight line.
    """
    one = meter.measure(Composition.of([Work(1, context)])).joules.mean
    many = meter.measure(Composition.of([Work(1, context)] * count)).joules.mean
    return (count * one - many) / (count - 1) / many


def _fitted(points: Sequence[Point], p: float) -> Form:
    tokens = np.array([float(x.tokens) for x in points])
    context = np.array([float(x.context) for x in points])
    seconds = np.array([x.seconds for x in points])
    start = np.log([0.1 * seconds.min(), 0.8 * seconds.min(), 1e-8, seconds.max() / tokens.max()])
    # Damped least squares in the logarithms of the constants, which keeps them positive.
    x, damping = start, 1.0
    residual = _residuals(x, tokens, context, seconds, p)
    for _ in range(_ROUNDS):
        jacobian = _jacobian(x, tokens, context, seconds, p)
        step = np.linalg.solve(jacobian.T @ jacobian + damping * np.eye(4), -jacobian.T @ residual)
        tried = x + np.clip(step, -1.0, 1.0)
        better = _residuals(tried, tokens, context, seconds, p)
        if better @ better < residual @ residual - _LEAST_GAIN:
            x, residual, damping = tried, better, damping / 3.0
        else:
            damping *= 4.0
    overhead, weights, per_context, per_token = (float(value) for value in np.exp(x))
    memory, compute = weights + per_context * context, per_token * tokens
    joules = np.array([point.joules for point in points])
    columns = np.stack([seconds, memory, compute], axis=1) / joules[:, None]
    watts = _nonnegative(columns, np.ones(len(joules)))
    return Form(
        p,
        overhead,
        weights,
        per_context,
        per_token,
        watts=float(watts[0]),
        memory_watts=float(watts[1]),
        compute_watts=float(watts[2]),
        time_residual=float(np.sqrt(np.mean(residual**2))),
        energy_residual=float(np.sqrt(np.mean((columns @ watts - 1.0) ** 2))),
    )


def _residuals(x: Floats, tokens: Floats, context: Floats, seconds: Floats, p: float) -> Floats:
    overhead, weights, per_context, per_token = np.exp(x)
    memory, compute = weights + per_context * context, per_token * tokens
    top = np.maximum(memory, compute)
    low = np.minimum(memory, compute) / top
    busy = top if math.isinf(p) else top * (1.0 + low**p) ** (1.0 / p)
    return np.asarray((overhead + busy) / seconds - 1.0)


def _jacobian(x: Floats, tokens: Floats, context: Floats, seconds: Floats, p: float) -> Floats:
    width = 1e-5
    columns = []
    for index in range(len(x)):
        moved = np.zeros(len(x))
        moved[index] = width
        high = _residuals(x + moved, tokens, context, seconds, p)
        columns.append((high - _residuals(x - moved, tokens, context, seconds, p)) / (2 * width))
    return np.stack(columns, axis=1)


def _nonnegative(columns: Floats, target: Floats) -> Floats:
    """Return the best non-negative factors; with three columns all subsets are tried."""
    best, least = np.zeros(columns.shape[1]), math.inf
    for bits in range(1, 1 << columns.shape[1]):
        chosen = [i for i in range(columns.shape[1]) if bits >> i & 1]
        found = np.linalg.lstsq(columns[:, chosen], target, rcond=None)[0]
        full = np.zeros(columns.shape[1])
        full[chosen] = found
        missed = float(np.sum((columns @ full - target) ** 2))
        if found.min() >= 0.0 and missed < least:
            best, least = full, missed
    return best
