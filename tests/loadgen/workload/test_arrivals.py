import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadgen.workload.arrivals import (
    Arrivals,
    Constant,
    Renewal,
    Trace,
    make_arrivals,
    parse_arrivals,
    ramp,
    sine,
)


def ks_exponential(gaps: Sequence[float]) -> float:
    """Scaled Kolmogorov-Smirnov distance from exp(1); 1.95 is exceeded with probability 0.001."""
    ordered = np.sort(gaps)
    n = len(ordered)
    model = 1 - np.exp(-ordered)
    high = np.arange(1, n + 1) / n - model
    low = model - np.arange(n) / n
    return float(max(high.max(), low.max())) * math.sqrt(n)


def times(arrivals: Arrivals, count: int) -> list[float]:
    found = [arrivals.at_ns(index) for index in range(count)]
    return [t / 1e9 for t in found if t is not None]


@pytest.mark.parametrize("seed", [0, 1, 7])
def test_poisson_gaps_are_exponential_with_the_given_rate(seed: int) -> None:
    gaps = np.diff([0.0, *times(Renewal(32.0, 1.0, seed), 5000)]) * 32
    assert ks_exponential(gaps.tolist()) < 1.95


def test_gamma_gaps_have_the_given_coefficient_of_variation() -> None:
    gaps = np.diff([0.0, *times(Renewal(10.0, 2.0, 3), 40_000)])
    assert gaps.mean() == pytest.approx(0.1, rel=0.05)
    assert gaps.std() / gaps.mean() == pytest.approx(2.0, rel=0.05)


@given(st.floats(0.1, 10_000), st.integers(0, 10**7))
def test_constant_never_drifts(rate: float, index: int) -> None:
    assert abs(Constant(rate).at_ns(index) - index * 1e9 / rate) <= 0.5 + index * 1e9 / rate * 1e-15


@given(st.integers(0, 2**32), st.sampled_from([0.5, 1.0, 3.0]))
def test_arrivals_are_reproducible_in_any_order_of_access(seed: int, cv: float) -> None:
    first, again = Renewal(5.0, cv, seed), Renewal(5.0, cv, seed)
    late = again.at_ns(1500)
    assert first.at_ns(3) == again.at_ns(3)
    assert first.at_ns(1500) == late


def test_seed_zero_is_a_seed_and_differs_from_one() -> None:
    assert times(Renewal(5.0, 1.0, 0), 9) == times(Renewal(5.0, 1.0, 0), 9)
    assert times(Renewal(5.0, 1.0, 0), 9) != times(Renewal(5.0, 1.0, 1), 9)


def test_ramp_is_poisson_in_its_own_time() -> None:
    found = np.array(times(ramp(5.0, 45.0, 200.0, 4), 4900))
    mass = 5 * found + 0.1 * found**2
    assert ks_exponential(np.diff([0.0, *mass]).tolist()) < 1.95


def test_ramp_to_zero_ends() -> None:
    falling = ramp(10.0, 0.0, 4.0, 0)
    assert falling.at_ns(1000) is None
    assert len(times(ramp(10.0, 0.0, 4.0, 0), 1000)) == pytest.approx(20, abs=15)


def test_sine_is_poisson_in_its_own_time() -> None:
    found = np.array(times(sine(20.0, 0.8, 10.0, 5), 4000))
    turn = 2 * math.pi / 10
    mass = 20 * (found + 0.8 / turn * (1 - np.cos(turn * found)))
    assert ks_exponential(np.diff([0.0, *mass]).tolist()) < 1.95


def test_trace_ends() -> None:
    assert [Trace((0, 5)).at_ns(i) for i in range(3)] == [0, 5, None]


@pytest.mark.parametrize(
    "text", ["", "frob", "gamma", "gamma:0", "gamma:x", "ramp:1", "ramp:0..0", "sine:2,5", "poisson:3",
             "trace:", "gamma:nan", "gamma:٣", "gamma:1e300", "gamma:1e-300"]
)  # fmt: skip
def test_malformed(text: str) -> None:
    with pytest.raises(ValueError, match="--arrivals"):
        parse_arrivals(text)


@pytest.mark.parametrize("text", ["poisson", "constant", "gamma:2", "ramp:1..8", "sine:0.5,10"])
def test_every_kind_is_made(text: str) -> None:
    made = make_arrivals(text, 4.0, 0, 10.0)
    assert times(made, 20) == sorted(times(made, 20))
