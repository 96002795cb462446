import numpy as np
import pytest

from proxy.core.reconstruct.cells import EngineProfile
from proxy.core.reconstruct.steps import steps
from tests.proxy.core.scene import MS, add, ended, group


def every(first: int, last: int, apart: int = 20) -> tuple[float, ...]:
    return tuple(float(ms) for ms in range(first, last + 1, apart))


def test_streams_that_emit_together_are_in_one_step() -> None:
    here = group()
    tracks = [
        add(here, "a", 0, every(20, 200), ended("a", 201, prompt=50, out=10)),
        add(here, "b", 85, every(120, 200), ended("b", 201, prompt=70, out=5)),
    ]
    work = steps(here, tracks, 0, 300 * MS, EngineProfile())
    totals = work.features()
    stepping = work.members == 0
    assert np.count_nonzero(stepping) == 10
    assert totals[stepping, 0].tolist() == pytest.approx([1.0] * 10)
    assert totals[:, 1].sum() == 9 + 4, "the first token of each comes with its prompt"
    assert totals[:, 3].sum() == pytest.approx(50 + 70)
    assert here.step_seconds == pytest.approx(0.02)


def test_a_merged_chunk_is_as_many_steps() -> None:
    here = group()
    tracks = [
        add(here, "a", 0, every(20, 200), ended("a", 201, prompt=50, out=10)),
        add(here, "b", 0, every(20, 200, 40), ended("b", 201, prompt=70, out=9)),
    ]
    work = steps(here, tracks, 0, 201 * MS, EngineProfile())
    decode = work.entries[0]
    assert decode.decode is not None
    of_b = decode.cell[decode.request == 1]
    assert len(set(of_b.tolist())) == len(of_b) == 8
    assert decode.decode[decode.request == 1].sum() == pytest.approx(8.0)


def test_a_merged_first_chunk_is_in_no_step_that_ended_before_its_request_arrived() -> None:
    here = group()
    tracks = [
        add(here, "a", 0, every(20, 240), ended("a", 241, prompt=50, out=12)),
        add(here, "b", 190, (220.0, 240.0), ended("b", 241, prompt=70, out=9)),
    ]
    work = steps(here, tracks, 0, 241 * MS, EngineProfile())
    for entries in work.entries:
        of_b = entries.cell[entries.request == 1]
        assert (work.cell_end[of_b] > 190 * MS).all()
    decode = work.entries[0]
    assert decode.decode is not None
    assert decode.decode[decode.request == 1].sum() == pytest.approx(8.0)


def test_the_context_grows_with_the_answer() -> None:
    here = group()
    track = add(here, "a", 0, every(20, 100), ended("a", 101, prompt=50, out=5))
    decode = steps(here, [track], 0, 101 * MS, EngineProfile()).entries[0]
    assert decode.context is not None
    assert decode.context.tolist() == [51.5, 52.5, 53.5, 54.5]


def test_silence_is_shared_by_those_who_are_there() -> None:
    here = group()
    tracks = [add(here, "a", 0), add(here, "b", 50)]
    work = steps(here, tracks, 0, 100 * MS, EngineProfile(step_seconds=0.05))
    assert work.members.tolist() == [1.0, 2.0]
    assert work.shared.tolist() == pytest.approx([1.0, 1.0])


def test_an_answer_sent_whole_was_in_the_steps_of_the_others() -> None:
    here = group()
    tracks = [
        add(here, "seen", 0, every(20, 400), ended("seen", 401, prompt=50, out=20)),
        add(here, "whole", 100, (), ended("whole", 400, prompt=60, out=6)),
    ]
    work = steps(here, tracks, 0, 500 * MS, EngineProfile())
    totals = work.features()[work.members == 0]
    assert len(totals) == 20
    assert totals[-5:, 1].tolist() == [2.0] * 5
    assert tracks[1].evidence == "usage"


def test_an_empty_block_is_empty_work() -> None:
    here = group()
    work = steps(here, [add(here, "a", 500)], 0, 100 * MS, EngineProfile())
    assert len(work.cell_start) == 0
