from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.simulator.engine.diffusion import DiffusionEngine, DiffusionJob, Shape, load, names
from proxy.simulator.profiles.profile import ProfileError

PROFILE = load("h100-stable-diffusion-3.5-large")
SMALL = Shape(256, 256, 1, 3)
LARGE = Shape(1024, 1024, 1, 3)


def drain(engine: DiffusionEngine, scale: float = 1.0) -> tuple[float, float]:
    joules = seconds = 0.0
    while (step := engine.plan()) is not None:
        joules += step.joules[0] * scale
        seconds += step.seconds[0]
        engine.take(step, scale)
    return joules, seconds


def test_a_batch_takes_what_was_published() -> None:
    engine = DiffusionEngine(PROFILE)
    job = DiffusionJob("a", 1, Shape(1024, 1024, 1, 28))
    engine.submit(job)
    joules, seconds = drain(engine)
    assert joules / seconds == pytest.approx(650, rel=0.1), "near the GPU's limit of 700 W"
    assert job.joules.total == pytest.approx(joules, rel=1e-12)


def test_requests_of_one_shape_share_a_batch_others_wait() -> None:
    engine = DiffusionEngine(PROFILE)
    jobs = [DiffusionJob("a", 2, SMALL), DiffusionJob("b", 1, LARGE), DiffusionJob("c", 3, SMALL)]
    for job in jobs:
        engine.submit(job)
    step = engine.plan()
    assert step is not None
    assert [job.name for job in step.jobs] == ["a", "c"]
    assert (engine.running, engine.waiting) == (2, 1)
    drain(engine)
    assert all(job.done for job in jobs)
    assert jobs[2].joules.decode == pytest.approx(1.5 * jobs[0].joules.decode)
    assert jobs[2].joules.static == pytest.approx(jobs[0].joules.static)


def test_a_batch_has_a_limit_and_one_too_large_goes_alone() -> None:
    engine = DiffusionEngine(PROFILE)
    for name, samples in (("a", PROFILE.max_batch + 5), ("b", 1)):
        engine.submit(DiffusionJob(name, samples, SMALL))
    step = engine.plan()
    assert step is not None
    assert [job.name for job in step.jobs] == ["a"]


def test_a_client_that_leaves_frees_only_the_queue() -> None:
    engine = DiffusionEngine(PROFILE)
    first, second = DiffusionJob("a", 1, SMALL), DiffusionJob("b", 1, LARGE)
    engine.submit(first)
    engine.submit(second)
    engine.plan()
    engine.cancel(first)
    engine.cancel(second)
    drain(engine)
    assert (first.done, second.done, engine.idle) == (True, False, True)


def test_more_pixels_frames_and_steps_cost_more() -> None:
    def cost(shape: Shape) -> float:
        engine = DiffusionEngine(PROFILE)
        engine.submit(DiffusionJob("a", 1, shape))
        return drain(engine)[0]

    base = cost(Shape(512, 512, 1, 10))
    assert cost(Shape(512, 512, 1, 20)) == pytest.approx(2 * base)
    assert cost(Shape(1024, 1024, 1, 10)) > 2.5 * base
    assert cost(Shape(512, 512, 81, 10)) > 15 * base
    assert Shape(512, 512, 81, 1).tokens == 1024 * 21


@given(
    jobs=st.lists(st.tuples(st.integers(1, 20), st.sampled_from([SMALL, LARGE])), min_size=1, max_size=10),
    scale=st.floats(0.5, 2.0),
)
def test_the_truth_of_all_requests_is_the_energy_of_all_steps(
    jobs: list[tuple[int, Shape]], scale: float
) -> None:
    engine = DiffusionEngine(PROFILE)
    submitted = [DiffusionJob(str(i), samples, shape) for i, (samples, shape) in enumerate(jobs)]
    for job in submitted:
        engine.submit(job)
    joules, _ = drain(engine, scale)
    assert sum(job.joules.total for job in submitted) == pytest.approx(joules, rel=1e-9)
    with pytest.raises(ValueError, match="at least one sample"):
        engine.submit(DiffusionJob("x", 0, SMALL))


def test_every_profile_of_the_package_loads() -> None:
    assert len(names()) > 40
    assert all("simulated" in load(name).device for name in names())
    with pytest.raises(ProfileError, match="no such profile"):
        load("nothing")


def test_a_wrong_key_is_named(tmp_path: Path) -> None:
    path = tmp_path / "d.toml"
    path.write_text("kind = 'song'\n")
    with pytest.raises(ProfileError, match=r"d\.toml"):
        load(str(path))
