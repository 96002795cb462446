from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.simulator.engine.batching import BLOCK, Engine, Finished
from proxy.simulator.engine.job import Job
from proxy.simulator.profiles.profile import DEFAULT, Experts, Limits, Profile, Speculation, load

LIMITS = Limits(max_num_seqs=4, max_batched_tokens=64, kv_tokens=1008, max_waiting=8)
DENSE = replace(load(DEFAULT), limits=LIMITS, cap_watts=None)
DRAFTED = replace(DENSE, speculation=Speculation(3, 0.7))
MIXTURE = replace(DENSE, experts=Experts(128, 8), joules=replace(DENSE.joules, experts=2.0))


def drain(engine: Engine, most: int = 1, scale: float = 1.0) -> float:
    drawn = 0.0
    for _ in range(10_000):
        plan = engine.plan(most)
        if plan is None:
            return drawn
        drawn += float(sum(plan.joules)) * scale
        engine.finish(plan, scale)
    raise AssertionError("the engine does not come to an end")


def test_a_prompt_is_computed_in_chunks_and_its_last_one_emits() -> None:
    engine = Engine(DENSE)
    job = Job("a", 150, 2)
    engine.submit(job)
    chunks, emitted = [], []
    while (step := engine.plan()) is not None:
        chunks.append([chunk for _, chunk in step.prefill])
        engine.finish(step)
        emitted.append(engine.emitted(job))
    assert chunks == [[64], [64], [22], []]
    assert emitted == [0, 0, 1, 2]
    assert (job.scheduled, job.runs) == (0, [(2, 4)])
    each = DENSE.joules
    assert job.joules.prefill == pytest.approx(150 * each.prefill)
    assert job.joules.static == pytest.approx(4 * each.static)
    assert job.joules.context == pytest.approx(151 * each.context)


def test_decoding_goes_first_and_takes_of_the_budget() -> None:
    engine = Engine(DENSE)
    engine.submit(Job("a", 10, 5))
    step = engine.plan()
    assert step is not None
    assert [job.name for job in engine.finish(step).prompts] == ["a"]
    engine.submit(Job("b", 100, 1))
    step = engine.plan()
    assert step is not None
    assert [job.name for job in engine.decoding()] == ["a"]
    assert [(job.name, chunk) for job, chunk in step.prefill] == [("b", 63)]


def test_limits_make_requests_wait() -> None:
    engine = Engine(DENSE)
    for number in range(6):
        engine.submit(Job(str(number), 10, 5))
    engine.plan()
    assert (engine.running, engine.waiting) == (4, 2)
    full = Engine(replace(DENSE, limits=replace(LIMITS, max_batched_tokens=5000)))
    for number in range(3):
        full.submit(Job(str(number), 500, 100))
    full.plan()
    assert (full.running, full.waiting) == (1, 2)


def test_what_never_fits_and_what_finds_the_queue_full_is_refused() -> None:
    engine = Engine(DENSE)
    assert engine.refusal(Job("a", 1000, 8)) is None
    assert engine.refusal(Job("a", 1000, 9)) == "length"
    for number in range(8):
        engine.submit(Job(str(number), 10, 5))
    assert engine.refusal(Job("a", 1, 1)) == "queue"
    with pytest.raises(ValueError, match="at least one prompt token"):
        engine.submit(Job("a", 1, 0))


def test_a_cancelled_request_computes_no_more() -> None:
    engine = Engine(DENSE)
    first, second = Job("a", 10, 50), Job("b", 10, 50)
    engine.submit(first)
    step = engine.plan()
    assert step is not None
    engine.submit(second)
    engine.cancel(second)
    engine.cancel(first)
    assert engine.finish(step) == Finished((), ())
    assert engine.plan() is None
    assert engine.cache.used == 0
    assert first.joules.total == pytest.approx(step.joules[0]), "what was spent on it is its own"


def test_a_full_cache_preempts_the_last_admitted_which_then_computes_again() -> None:
    engine = Engine(DENSE)
    jobs = [Job(str(n), 300, 100) for n in range(3)]
    for job in jobs:
        engine.submit(job)
    drain(engine, 1000)
    assert [job.preemptions > 0 for job in jobs] == [False, False, True]
    assert [job.emitted for job in jobs] == [100, 100, 100]
    assert 2 <= len(jobs[2].runs) <= jobs[2].preemptions + 1, "it may be preempted before it decodes again"
    assert sum(b - a for a, b in jobs[2].runs) == 100
    assert engine.totals.prompt_tokens > 900
    assert engine.cache.used == 0


def test_the_same_beginning_is_computed_once() -> None:
    engine = Engine(DENSE)
    chain = tuple(range(6))
    first, second, third = (Job(n, 100, 4, chain) for n in "abc")
    engine.submit(first)
    drain(engine)
    engine.submit(second)
    drain(engine)
    assert (first.cached_tokens, second.cached_tokens) == (0, 6 * BLOCK)
    assert second.joules.prefill == pytest.approx(4 * DENSE.joules.prefill)
    engine.submit(Job("x", 1000, 8))
    drain(engine)
    engine.submit(third)
    drain(engine)
    assert third.cached_tokens == 0, "its room was needed"
    whole = Job("d", 96, 1, chain)
    engine.submit(whole)
    drain(engine)
    assert whole.cached_tokens == 80, "at least one token is computed"


def test_prompts_that_fill_the_cache_together_come_to_an_end() -> None:
    engine = Engine(replace(DENSE, limits=replace(LIMITS, max_batched_tokens=900)))
    jobs = [Job(str(n), 800, 200) for n in range(2)]
    for job in jobs:
        engine.submit(job)
    drain(engine, 1000)
    assert all(job.done for job in jobs)


def test_drafted_tokens_come_several_a_step_as_often_as_they_are_accepted() -> None:
    how = Speculation(3, 0.7)
    assert how.mean == pytest.approx(1 + 0.7 + 0.49 + 0.343)
    engine = Engine(replace(DENSE, speculation=how))
    job = Job("a", 10, 4000)
    engine.limits = replace(LIMITS, kv_tokens=5000)
    engine.cache.blocks = 400
    engine.submit(job)
    gained = []
    while (step := engine.plan()) is not None:
        engine.take(step, 1.0)
        gained.append(job.gained)
    assert sum(gained) == job.emitted == 4000
    assert set(gained) == {1, 2, 3, 4}
    assert 4000 / engine.step == pytest.approx(how.mean, rel=0.05)
    totals = engine.totals
    assert totals.accepted_tokens == 4000 - engine.step
    assert (totals.drafts, totals.drafted_tokens) == (engine.step - 1, 3 * (engine.step - 1))


def test_a_fully_accepted_draft_takes_fewer_and_dearer_steps() -> None:
    spent = {}
    for how in (None, Speculation(3, 1.0, draft=0.1)):
        engine = Engine(replace(DENSE, speculation=how))
        job = Job("a", 10, 81)
        engine.submit(job)
        drain(engine)
        spent[how] = (engine.step, job.joules.static, job.joules.decode)
    (steps, static, decode), (fewer, cheaper, dearer) = spent.values()
    assert (steps, fewer) == (81, 21)  # the first token comes with the prompt, then four a step
    assert cheaper == pytest.approx(static * 1.3 * 21 / 81)
    each = DENSE.joules
    assert dearer == pytest.approx(20 * (each.decode + 3 * each.prefill))
    assert decode == pytest.approx(80 * each.decode)


JOBS = st.lists(
    st.tuples(st.integers(1, 300), st.integers(1, 200), st.integers(0, 12)), min_size=1, max_size=12
)


@settings(deadline=None)
@given(jobs=JOBS, scale=st.floats(0.5, 2.0), profile=st.sampled_from([DENSE, MIXTURE, DRAFTED]))
def test_the_truth_of_all_requests_is_the_energy_of_all_steps(
    jobs: list[tuple[int, int, int]], scale: float, profile: Profile
) -> None:
    engine = Engine(profile)
    submitted = [
        Job(str(i), prompt, output, tuple(range(min(shared, prompt // BLOCK))))
        for i, (prompt, output, shared) in enumerate(jobs)
    ]
    for job in submitted:
        engine.submit(job)
    drawn = drain(engine, scale=scale)
    assert all(job.done for job in submitted)
    assert all(sum(end - start for start, end in job.runs) == job.output_tokens for job in submitted)
    assert sum(job.joules.total for job in submitted) == pytest.approx(drawn, rel=1e-9)
    totals = engine.totals
    parts = totals.static + totals.prefill + totals.decode + totals.context
    assert parts == pytest.approx(drawn, rel=1e-9)
    assert (engine.cache.used, engine.running) == (0, 0)


@settings(deadline=None)
@given(jobs=JOBS, cap=st.sampled_from([None, 400.0]))
def test_many_steps_at_once_are_the_same_as_one_by_one(
    jobs: list[tuple[int, int, int]], cap: float | None
) -> None:
    seen = []
    for most in (1, 7, 10_000):
        engine = Engine(replace(MIXTURE, cap_watts=cap))
        submitted = [Job(str(i), prompt, output) for i, (prompt, output, _) in enumerate(jobs)]
        for job in submitted:
            engine.submit(job)
        drawn = drain(engine, most)
        joules = [value for job in submitted for value in (job.joules.static, job.joules.context)]
        seen.append(([job.runs for job in submitted], engine.totals.preemptions, [drawn, *joules]))
    for runs, preemptions, joules in seen[1:]:
        assert (runs, preemptions) == seen[0][:2]
        assert joules == pytest.approx(seen[0][2], rel=1e-9)


@settings(deadline=None)
@given(
    jobs=JOBS,
    cancelled=st.lists(st.integers(0, 11), max_size=6),
    after=st.integers(0, 80),
    profile=st.sampled_from([DENSE, DRAFTED]),
)
def test_cancelled_requests_keep_what_they_spent_and_free_their_cache(
    jobs: list[tuple[int, int, int]], cancelled: list[int], after: int, profile: Profile
) -> None:
    engine = Engine(profile)
    submitted = [Job(str(i), prompt, output) for i, (prompt, output, _) in enumerate(jobs)]
    for job in submitted:
        engine.submit(job)
    drawn = 0.0
    for number in range(after):
        if (plan := engine.plan(3)) is None:
            break
        if number == after - 1:
            for index in cancelled:
                if index < len(submitted) and not submitted[index].done:
                    engine.cancel(submitted[index])
        drawn += float(sum(plan.joules))
        engine.finish(plan)
    drawn += drain(engine, 1000)
    assert sum(job.joules.total for job in submitted) == pytest.approx(drawn, rel=1e-9)
    assert (engine.cache.used, engine.idle) == (0, True)
