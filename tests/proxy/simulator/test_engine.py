from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.simulator.engine import Engine, Job
from proxy.simulator.profile import DEFAULT, Limits, ProfileError, load, names

PROFILE = replace(load(DEFAULT), limits=Limits(max_num_seqs=4, max_batched_tokens=64, kv_tokens=1000))


def drain(engine: Engine, scale: float = 1.0) -> float:
    drawn = 0.0
    for _ in range(10_000):
        step = engine.plan()
        if step is None:
            return drawn
        drawn += step.joules * scale
        engine.finish(step, scale)
    raise AssertionError("the engine does not come to an end")


def test_a_prompt_is_computed_in_chunks_and_its_last_one_emits() -> None:
    engine = Engine(PROFILE)
    job = Job("a", 150, 2)
    engine.submit(job)
    chunks, emitted = [], []
    while (step := engine.plan()) is not None:
        chunks.append([chunk for _, chunk in step.prefill])
        engine.finish(step, 1.0)
        emitted.append(job.emitted)
    assert chunks == [[64], [64], [22], []]
    assert emitted == [0, 0, 1, 2]
    each = PROFILE.joules
    assert job.joules.prefill == pytest.approx(150 * each.prefill)
    assert job.joules.static == pytest.approx(4 * each.static)
    assert job.joules.context == pytest.approx(151 * each.context)


def test_decoding_goes_first_and_takes_of_the_budget() -> None:
    engine = Engine(PROFILE)
    engine.submit(Job("a", 10, 5))
    step = engine.plan()
    assert step is not None
    engine.finish(step, 1.0)
    engine.submit(Job("b", 100, 1))
    step = engine.plan()
    assert step is not None
    assert [job.name for job in step.decode] == ["a"]
    assert [(job.name, chunk) for job, chunk in step.prefill] == [("b", 63)]


def test_limits_make_requests_wait() -> None:
    engine = Engine(PROFILE)
    for number in range(6):
        engine.submit(Job(str(number), 10, 5))
    engine.plan()
    assert (engine.running, engine.waiting) == (4, 2)
    full = Engine(PROFILE)
    for number in range(3):
        full.submit(Job(str(number), 500, 100))
    full.plan()
    assert (full.running, full.waiting) == (1, 2)


def test_a_cancelled_request_computes_no_more() -> None:
    engine = Engine(PROFILE)
    first, second = Job("a", 10, 50), Job("b", 10, 50)
    engine.submit(first)
    step = engine.plan()
    assert step is not None
    engine.submit(second)
    engine.cancel(second)
    engine.cancel(first)
    assert engine.finish(step, 1.0) == []
    assert engine.plan() is None
    assert first.joules.total == pytest.approx(step.joules), "what was spent on it is its own"


@given(
    jobs=st.lists(st.tuples(st.integers(1, 300), st.integers(1, 40)), min_size=1, max_size=12),
    scale=st.floats(0.5, 2.0),
)
def test_the_truth_of_all_requests_is_the_energy_of_all_steps(
    jobs: list[tuple[int, int]], scale: float
) -> None:
    engine = Engine(PROFILE)
    submitted = [Job(str(i), prompt, output) for i, (prompt, output) in enumerate(jobs)]
    for job in submitted:
        engine.submit(job)
    drawn = drain(engine, scale)
    assert all(job.done for job in submitted)
    assert sum(job.joules.total for job in submitted) == pytest.approx(drawn, rel=1e-9)


def test_a_profile_that_is_not_there_names_those_that_are() -> None:
    with pytest.raises(ProfileError, match=names()[0]):
        load("nothing")


def test_a_profile_with_a_wrong_key_says_which(tmp_path: object) -> None:
    from pathlib import Path

    path = Path(str(tmp_path)) / "p.toml"
    path.write_text("model = 'x'\n")
    with pytest.raises(ProfileError, match="missing required field"):
        load(str(path))
