import numpy as np
import pytest

from proxy.core.activity.tracks import Group, Track
from proxy.core.events import Step
from proxy.core.fit.model import EnergyModel
from proxy.core.policies import POLICIES, Block, Policy, policy_named
from tests.proxy.core.scene import MS, add, ended, group


def scene() -> tuple[Group, list[Track]]:
    here = group()
    outputs = tuple(float(ms) for ms in range(20, 201, 20))
    return here, [
        add(here, "a", 0, outputs, ended("a", 200, prompt=50, out=10)),
        add(here, "b", 100, outputs[5:], ended("b", 200, prompt=None)),
    ]


def block(policy: Policy, edges_ms: tuple[int, ...], joules: tuple[float, ...]) -> Block:
    here, tracks = scene()
    work = policy.work(here, tracks, 0, 400 * MS)
    edges, known = np.array(edges_ms, np.int64) * MS, np.ones(len(joules), bool)
    foreign = np.zeros(len(joules))
    return Block(edges, np.array(joules), [work], [work.features()], [0], known, foreign)


@pytest.mark.parametrize("name", POLICIES)
def test_requests_get_no_more_than_was_measured_and_idle_time_is_idle(name: str) -> None:
    policy = policy_named(name)
    split = policy.split(EnergyModel(1), block(policy, (0, 100, 200, 300, 400), (30.0, 30.0, 30.0, 30.0)))
    assert (split.requests >= 0.0).all()
    assert (split.requests <= 30.0 + 1e-9).all()
    assert split.requests[:2].tolist() == pytest.approx([30.0, 30.0])
    assert split.requests[2:].tolist() == pytest.approx([0.0, 0.0])


@pytest.mark.parametrize("name", POLICIES)
def test_no_energy_is_no_misfit(name: str) -> None:
    policy = policy_named(name)
    split = policy.split(EnergyModel(1), block(policy, (0, 200, 400), (0.0, 0.0)))
    assert split.requests.tolist() == [0.0, 0.0]
    assert all(np.isfinite(misfit).all() for misfit in split.misfits)


def test_overlap_needs_nothing_the_others_need_usage() -> None:
    assert {name: policy_named(name).needs_usage for name in POLICIES} == {
        "overlap": False,
        "tokens": True,
        "steps": True,
    }


def test_steps_the_engine_reports_are_taken_instead_of_rebuilt_ones() -> None:
    policy = policy_named("steps")
    here, tracks = scene()
    here.steps = [Step(50 * MS, None, ("gpu0",), 0, {"a": 50})]
    for track in tracks:
        track.reported = True
    work = policy.work(here, tracks, 0, 200 * MS)
    assert work.features()[0].tolist() == pytest.approx([1.0, 0.0, 0.0, 50.0, 0.05])
    assert {track.evidence for track in tracks} == {"steps"}


def test_an_unknown_name_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match="'magic' is not one of steps, tokens, overlap"):
        policy_named("magic")
