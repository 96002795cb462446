import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.fit.fairness import fair_seconds
from proxy.core.fit.step_time import StepTime


def exact(time: StepTime, memory: list[float], compute: list[float]) -> list[float]:
    """Return the Shapley value of each member by all orders of joining, overhead and weights left out."""
    count = len(memory)
    shares = [0.0] * count
    for order in itertools.permutations(range(count)):
        m, c, before = time.weights, 0.0, time.weights
        for member in order:
            m, c = m + memory[member], c + compute[member]
            norm = max(m, c) if math.isinf(time.p) else (m**time.p + c**time.p) ** (1.0 / time.p)
            shares[member] += norm - before
            before = norm
    return [share / math.factorial(count) for share in shares]


@pytest.mark.parametrize("p", [1.0, 2.5, math.inf])
def test_prompts_alone_in_a_step_get_their_exact_shapley_value(p: float) -> None:
    time = StepTime(1e-3, 5e-3, 4e-8, 2e-5, 3e-5, p)
    tokens, read = np.array([100.0, 900.0, 30.0]), np.array([0.0, 2_000.0, 50_000.0])
    none = np.zeros(1)
    found = fair_seconds(time, none, none, none, np.zeros(3, np.int64), tokens, read)
    want = exact(time, (time.context * read).tolist(), (time.prefill * tokens).tolist())
    assert found.prompt == pytest.approx(want, rel=0.03)


def test_a_prompt_among_many_streams_gets_nearly_its_exact_share() -> None:
    time = StepTime(1e-3, 5e-3, 4e-8, 2e-4, 3e-5, math.inf)
    streams, read, tokens = 6, 10_000.0, 150.0
    found = fair_seconds(
        time, np.array([float(streams)]), np.array([streams * read]), np.zeros(1),
        np.zeros(1, np.int64), np.array([tokens]), np.zeros(1),
    )  # fmt: skip
    memory, compute = (
        [time.context * read] * streams + [0.0],
        [time.decode] * streams + [time.prefill * tokens],
    )
    want = exact(time, memory, compute)
    assert found.prompt[0] == pytest.approx(want[-1], rel=0.1)
    each = float(found.context[0] * read + found.decode[0])
    assert each == pytest.approx(want[0], rel=0.15)


@given(
    st.sampled_from([1.0, 1.5, 2.5, 5.0, math.inf]),
    st.lists(st.floats(1.0, 8_000.0), max_size=6),
    st.integers(0, 300),
)
def test_all_seconds_of_a_step_are_divided(p: float, tokens: list[float], streams: int) -> None:
    time = StepTime(1e-3, 5e-3, 4e-8, 2e-5, 3e-5, p)
    count = np.array([float(streams)])
    context = 700.0 * count
    prompts = np.array(tokens)
    found = fair_seconds(
        time, count, context, np.zeros(1), np.zeros(len(tokens), np.int64), prompts, np.zeros(len(tokens))
    )
    total = time.overhead + time.weights + found.context @ context + found.decode @ count + found.prompt.sum()
    assert total == pytest.approx(time.seconds(count, context, prompts.sum(keepdims=True))[0], rel=0.06)
