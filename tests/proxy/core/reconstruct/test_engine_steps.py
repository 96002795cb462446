import numpy as np
import pytest

from proxy.core.events import Step
from proxy.core.reconstruct.cells import EngineProfile
from proxy.core.reconstruct.engine_steps import engine_steps
from tests.proxy.core.scene import MS, add, ended, group

GPU = ("gpu0",)


def step(start_ms: int, end_ms: int, prefill: dict[str, int], *decode: str) -> Step:
    return Step(end_ms * MS, None, GPU, start_ms * MS, prefill, decode)


def test_reported_steps_are_the_cells_and_their_members_share_them() -> None:
    here = group()
    tracks = [
        add(here, "a", 0, (), ended("a", 41, prompt=100, out=3)),
        add(here, "b", 5, (), ended("b", 41, prompt=None, out=None)),
    ]
    here.steps = [
        step(0, 10, {"a": 100}),
        step(10, 20, {"b": 64, "stranger": 5}, "a"),
        step(20, 30, {"b": 6}, "a"),
        step(30, 40, {}, "a", "b", "stranger"),
    ]
    for track in tracks:
        track.reported = True
    work = engine_steps(here, tracks, 0, 41 * MS, EngineProfile(prompt_tokens=500.0))
    totals = work.features()[work.members == 0]
    assert totals[:, 0].tolist() == pytest.approx([1.0] * 4)
    assert totals[:, 1].tolist() == [0.0, 1.0, 1.0, 2.0]
    assert totals[:, 3].tolist() == [100.0, 64.0, 6.0, 0.0]
    # a reads 101, 102, 103 tokens; b the first part of its prompt, 64, then all of it, 70, and one token.
    assert totals[:, 2].tolist() == [0.0, 101.0, 102.0 + 64.0, 103.0 + 71.0]
    assert totals[:, 4].tolist() == pytest.approx([0.01] * 4), "the seconds of each step, all divided"
    assert [track.evidence for track in tracks] == ["steps", "steps"]
    assert (tracks[0].decoded, tracks[1].prefilled) == (3, 70)


def test_a_step_over_a_boundary_counts_once() -> None:
    here = group()
    track = add(here, "a", 0)
    here.steps = [step(0, 10, {"a": 8}), step(10, 30, {}, "a"), step(30, 40, {}, "a")]
    first = engine_steps(here, [track], 0, 20 * MS, EngineProfile())
    assert track.decoded == 0, "the second step is still open"
    second = engine_steps(here, [track], 20 * MS, 40 * MS, EngineProfile())
    assert track.decoded == 2
    for work in (first, second):
        assert np.all(np.diff(work.cell_start) > 0)


def test_what_is_still_open_is_not_counted_as_computed() -> None:
    here = group()
    track = add(here, "a", 0)
    here.steps = [step(0, 10, {"a": 8}), step(10, 30, {"a": 8})]
    engine_steps(here, [track], 0, 20 * MS, EngineProfile())
    assert track.prefilled == 8
