import pytest

from proxy.core.reconstruct.overlap import overlap
from tests.proxy.core.scene import MS, add, ended, group


def test_cells_lie_between_arrivals_and_ends_and_time_without_requests_has_none() -> None:
    here = group()
    tracks = [
        add(here, "a", 10, (), ended("a", 30)),
        add(here, "b", 20, (), ended("b", 40)),
        add(here, "running", 60),
    ]
    work = overlap(tracks, 0, 80 * MS)
    assert [ns // MS for ns in work.cell_start.tolist()] == [10, 20, 30, 60]
    assert [ns // MS for ns in work.cell_end.tolist()] == [20, 30, 40, 80]
    assert work.members.tolist() == [1.0, 2.0, 1.0, 1.0]
    assert work.shared.tolist() == pytest.approx([0.01, 0.02, 0.01, 0.02])
    assert (work.span_first.tolist(), work.span_last.tolist()) == ([0, 1, 3], [2, 3, 4])


def test_a_life_beyond_the_block_is_cut_and_one_of_no_length_has_no_cell() -> None:
    here = group()
    tracks = [add(here, "long", -50, (), ended("long", 500)), add(here, "none", 20, (), ended("none", 20))]
    work = overlap(tracks, 0, 100 * MS)
    assert work.cell_start.tolist()[0] == 0
    assert work.cell_end.tolist()[-1] == 100 * MS
    assert set(work.members.tolist()) == {1.0}
    assert work.span_first[1] == work.span_last[1]


def test_nobody_there_is_no_work() -> None:
    work = overlap([], 0, 100 * MS)
    assert (work.requests, len(work.cell_start)) == (0, 0)
