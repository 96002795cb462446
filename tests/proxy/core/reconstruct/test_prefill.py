from dataclasses import replace

import numpy as np
import pytest

from proxy.core.fit.step_time import StepTimes
from proxy.core.reconstruct.prefill import Placed, Prompts, Seen, place

BASE, STREAM, TOKEN = 0.006, 4e-5, 2.5e-5  # seconds of an engine's steps


def engine(chunks: list[dict[int, float]], streams: int = 10) -> Seen:
    """Return steps in which prompts (by number) had so many tokens computed."""
    took = np.array([BASE + STREAM * streams + TOKEN * sum(c.values()) for c in chunks])
    stamps = np.cumsum(took)
    count = len(chunks)
    return Seen(
        stamps - took, stamps, np.full(count, float(streams)), np.zeros(count), float(stamps[-1]) + 1.0
    )


def prompts(seen: Seen, chunks: list[dict[int, float]], unknown: tuple[int, ...] = ()) -> Prompts:
    """Of these chunks; all arrived a few steps before their first chunk."""
    numbers = sorted({number for chunk in chunks for number in chunk})
    steps = {n: [at for at, chunk in enumerate(chunks) if n in chunk] for n in numbers}
    tokens = np.array([300.0 if n in unknown else sum(c.get(n, 0.0) for c in chunks) for n in numbers])
    return Prompts(
        request=np.array(numbers),
        step=np.array([steps[n][-1] for n in numbers]),
        arrival=np.array([seen.begins[max(steps[n][0] - 3, 0)] - 1e-4 for n in numbers]),
        tokens=tokens,
        most=tokens,
        doubt=np.zeros(len(numbers)),
        silent=np.zeros(len(numbers), bool),
        reported=np.array([n not in unknown for n in numbers]),
    )


def found(placed: Placed) -> dict[tuple[int, int], float]:
    return {(int(s), int(r)): float(n) for s, r, n in zip(*placed, strict=True) if n > 1.0}


def traffic(count: int = 300) -> list[dict[int, float]]:
    """A prompt every third step, some of them over two."""
    rng = np.random.default_rng(1)
    chunks: list[dict[int, float]] = [{} for _ in range(count)]
    for number, at in enumerate(range(3, count - 2, 3)):
        if number % 4 == 0:
            chunks[at][number] = 1_000.0
        chunks[at + 1][number] = float(rng.integers(100, 900))
    return chunks


def test_prompts_are_placed_by_the_time_that_steps_took() -> None:
    chunks = traffic()
    seen = engine(chunks)
    times = StepTimes()
    placed, _ = place(seen, prompts(seen, chunks), times)
    want = {(at, number): n for at, chunk in enumerate(chunks) for number, n in chunk.items()}
    got = found(placed)
    assert got.keys() == want.keys()
    assert all(got[key] == pytest.approx(want[key], rel=0.02) for key in want)
    assert times.time is not None
    assert times.time.prefill == pytest.approx(TOKEN, rel=0.02)
    assert not StepTimes().mature
    assert found(place(seen, prompts(seen, chunks), times)[0]).keys() == want.keys()


def test_a_prompt_of_unknown_length_gets_the_room_that_is_left() -> None:
    chunks = traffic()
    seen = engine(chunks)
    times = StepTimes()
    place(seen, prompts(seen, chunks), times)
    got = found(place(seen, prompts(seen, chunks, unknown=(20, 41)), times)[0])
    for number in (20, 41):
        want = sum(chunk.get(number, 0.0) for chunk in chunks)
        assert sum(n for (_, r), n in got.items() if r == number) == pytest.approx(want, rel=0.05)


def test_prompts_side_by_side_are_bounded_by_their_arrival_alone() -> None:
    rng = np.random.default_rng(2)
    chunks: list[dict[int, float]] = [{} for _ in range(400)]
    for number, at in enumerate(range(0, 380, 5)):
        for step in range(at, at + int(rng.integers(3, 12))):
            chunks[step][number] = 200.0
    seen = engine(chunks)
    times = StepTimes()
    placed, _ = place(seen, prompts(seen, chunks), times)
    computed = np.bincount(placed[0], placed[2], minlength=len(chunks))
    want = np.array([sum(chunk.values()) for chunk in chunks])
    assert np.corrcoef(computed, want)[0, 1] > 0.75
    assert computed.sum() == pytest.approx(want.sum())
    assert times.time is not None
    assert times.time.prefill > 0.0


def test_without_steps_or_prompts_nothing_is_learned() -> None:
    one = engine([{0: 50.0}])
    times = StepTimes()
    (steps, request, tokens), _ = place(one, prompts(one, [{0: 50.0}]), times)
    assert (steps.tolist(), request.tolist(), tokens.tolist()) == ([0], [0], [50.0])
    many = engine([{}, {}, {}])
    assert len(place(many, prompts(many, []), times)[0][0]) == 0
    assert times.seconds == 0.0


def test_steps_that_all_take_the_same_time_leave_prompts_at_their_first_tokens() -> None:
    count = 50
    stamps = np.linspace(0.01, 0.01 * count, count)
    seen = Seen(stamps - 0.01, stamps, np.full(count, 4.0), np.zeros(count), 1.0)
    some = Prompts(
        np.arange(3),
        np.array([10, 20, 30]),
        np.array([0.05, 0.15, 0.25]),
        np.array([100.0, 400.0, 50.0]),
        np.array([100.0, 400.0, 50.0]),
        np.zeros(3),
        np.zeros(3, bool),
        np.ones(3, bool),
    )
    (steps, request, tokens), _ = place(seen, some, StepTimes())
    assert np.bincount(request, tokens).tolist() == pytest.approx([100.0, 400.0, 50.0])
    assert {10, 20, 30} <= set(steps.tolist())


def test_prompts_cached_without_any_report_are_sized_by_the_time_of_their_steps() -> None:
    chunks = traffic()
    seen = engine(chunks)
    computed = prompts(seen, chunks)
    rng = np.random.default_rng(2)
    of_all = np.where(
        rng.random(len(computed.tokens)) < 0.1, 1.0, rng.uniform(2.0, 8.0, len(computed.tokens))
    )
    length = computed.tokens * of_all
    reported = replace(computed, tokens=length, most=length, silent=np.ones(len(length), bool))
    times = StepTimes()
    (_, request, tokens), _ = place(seen, reported, times)
    assert times.partly_cached
    share = np.bincount(request, tokens) / computed.tokens
    assert np.median(np.abs(share / np.median(share) - 1.0)) < 0.05


def test_prompts_computed_entirely_are_not_taken_to_be_cached() -> None:
    chunks = traffic()
    seen = engine(chunks)
    known = prompts(seen, chunks)
    times = StepTimes()
    placed, _ = place(seen, replace(known, silent=np.ones(len(known.tokens), bool)), times)
    assert not times.partly_cached
    assert found(placed) == found(place(seen, known, StepTimes())[0])
