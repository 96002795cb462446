from dataclasses import replace

import numpy as np
import pytest

from proxy.core.activity.work import Entries, Work, covered_seconds, in_windows, over_cells, rounding, share
from proxy.units import NS_PER_SECOND

S = NS_PER_SECOND


def ints(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


def work(*entries: Entries) -> Work:
    """Two requests: both in a silence [0, 2) s, the second alone in a step [2, 3) s."""
    return Work(
        requests=2,
        cell_start=ints(0, 2 * S),
        cell_end=ints(2 * S, 3 * S),
        shared=np.array([4.0, 7.0]),
        members=np.array([2.0, 0.0]),
        span_first=ints(0, 0),
        span_last=ints(1, 2),
        entries=entries,
    )


STEP = Entries(ints(1, 1), ints(1, 1), np.array([0.5, 0.5]), decode=np.array([1.0, 2.0]))


def test_features_are_the_totals_of_cells_and_static_work_needs_a_member() -> None:
    assert work(STEP).features().tolist() == [[4.0, 0.0, 0.0, 0.0, 0.0], [1.0, 3.0, 0.0, 0.0, 0.0]]


def test_lives_sum_their_cells_and_never_earn() -> None:
    assert work().over_lives(np.array([2.0, 3.0])).tolist() == [2.0, 5.0]
    assert work().over_lives(np.array([-1.0, 0.5])).tolist() == [0.0, 0.0]


def test_work_is_spread_evenly_over_its_cell() -> None:
    mine = work(STEP)
    rows = in_windows(mine, mine.features(), ints(0, S, 5 * S // 2, 4 * S))
    assert rows[:, 0].tolist() == pytest.approx([2.0, 2.5, 0.5])
    assert rows[:, 1].tolist() == pytest.approx([0.0, 1.5, 1.5])
    none = Work(0, ints(), ints(), np.empty(0), np.empty(0), ints(), ints())
    assert in_windows(none, none.features(), ints(0, S)).tolist() == [[0.0] * 5]


def test_seconds_covered_by_any_work_count_once() -> None:
    edges = ints(0, S, 4 * S)
    assert covered_seconds([work(), work()], edges).tolist() == pytest.approx([1.0, 2.0])
    assert covered_seconds([], edges).tolist() == [0.0, 0.0]


def test_a_value_of_windows_is_averaged_over_cells() -> None:
    assert over_cells(work(), ints(0, S, 3 * S), np.array([1.0, 3.0])).tolist() == pytest.approx([2.0, 3.0])


def test_shares_are_modelled_work_times_the_scale_of_the_cell() -> None:
    mine, terms = work(STEP), np.array([2.0, 1.0, 0.0, 0.0, 0.0])
    allocation = share(mine, mine.features(), terms, np.array([1.0, 3.0]), np.array([0.0, 0.5]))
    assert allocation.parts.tolist() == [[4.0, 0.0, 0.0, 0.0], [4.0 + 6.0, 9.0, 0.0, 0.0]]
    assert allocation.life.tolist() == pytest.approx([8.0, 8.0 + 15.0])
    assert allocation.misfit.tolist() == pytest.approx([0.0, 7.5])


def test_without_silence_only_entries_are_shared() -> None:
    alone = Work(
        1, ints(0), ints(S), np.zeros(1), np.zeros(1), ints(0), ints(1), (Entries(ints(0), ints(0)),)
    )
    allocation = share(alone, alone.features(), np.ones(5), np.ones(1), np.ones(1))
    assert allocation.parts.tolist() == [[0.0] * 4]


def test_only_rounding_is_corrected() -> None:
    assert rounding(1.0, 0.0) == 0.0
    assert rounding(1.0, 1.0 + 1e-9) == pytest.approx(1.0 / (1.0 + 1e-9), abs=1e-15)
    assert rounding(1.0, 2.0) == 1.0, "an error of ours is not hidden"


def test_fair_seconds_are_charged_beside_amounts_and_counted_as_their_parts() -> None:
    prices = np.array([[0.5, 0.0, 0.0, 0.0], [0.2, 0.1, 0.0, 0.3]])
    prompt = Entries(ints(1), ints(0), prefill=np.array([10.0]), prefill_seconds=np.array([0.7]))
    mine = replace(work(STEP, prompt), prices=prices)
    # The silence: 4 steps of 0.5 s. The step: 0.2 s static, 3 tokens of 0.1 s, and the prompt's own 0.7 s.
    assert mine.features()[:, 4].tolist() == pytest.approx([2.0, 0.2 + 0.3 + 0.7])
    assert mine.part_seconds().tolist() == pytest.approx([2.2, 0.3, 0.0, 0.7])
    terms = np.array([0.0, 0.0, 0.0, 0.0, 100.0])
    found = share(mine, mine.features(), terms, np.ones(2), np.zeros(2))
    assert found.parts.tolist() == [
        pytest.approx([100.0, 0.0, 0.0, 70.0]),
        pytest.approx([100.0 + 20.0, 30.0, 0.0, 0.0]),
    ]
