import math

import pytest

from proxy.core.energy.plausible import CounterFilter, Move, PowerFilter, is_amount
from proxy.schema import Unknown
from proxy.units import NS_PER_SECOND

MJ_PER_SECOND = 100_000.0  # 100 W


def steady(
    start_mj: float = 1e9, seconds: int = 5, max_watts: float = 1_000.0
) -> tuple[CounterFilter, float]:
    """A counter that has risen by 100 W for some seconds, and its last reading."""
    judge = CounterFilter(max_watts)
    judge.rebase(0, start_mj)
    for t_s in range(1, seconds + 1):
        assert judge.feed(t_s * NS_PER_SECOND, start_mj + t_s * MJ_PER_SECOND)
    return judge, start_mj + seconds * MJ_PER_SECOND


def at(seconds: float) -> int:
    return round(seconds * NS_PER_SECOND)


@pytest.mark.parametrize(
    "blank",
    [
        math.nan,
        math.inf,
        -1.0,
        2147483632.0,
        2147483635.0,
        4294967295.0,
        9223372036854775792.0,
        18446744073709551615.0,
        140737488355328.0,
        140737488355331.0,
        140737488355328.0 * 1000,  # from a source in joules or watts
        9223372036854775794.0 * 1000,
    ],
)
def test_placeholders_of_drivers_and_exporters_are_no_amounts(blank: float) -> None:
    assert not is_amount(blank)


@pytest.mark.parametrize("value", [0.0, 1.5, 4e9, 1e15])
def test_other_numbers_are_amounts(value: float) -> None:
    assert is_amount(value)


@pytest.mark.parametrize("odd", [0.0, 3.0, 1e9 - 1e6, 1e9 + 5e7, 1e12, 1e17])
@pytest.mark.parametrize("times", [1, 2, 5])
def test_a_stray_value_is_left_out_however_long_it_is_shown(odd: float, times: int) -> None:
    judge, mj = steady()
    for k in range(times):
        assert judge.feed(at(6 + k), odd) is None
    seconds = times + 1
    assert judge.feed(at(5 + seconds), mj + seconds * MJ_PER_SECOND) == [
        Move(at(5 + seconds), 100.0 * seconds)
    ]
    assert judge.rejected == times


def test_one_reading_in_four_that_is_zero_loses_nothing() -> None:
    judge, mj = steady()
    joules = 0.0
    for k in range(1, 41):
        moves = judge.feed(at(5 + k), 0.0 if k % 4 == 0 else mj + k * MJ_PER_SECOND)
        joules += sum(move.joules for move in moves or [])
    assert joules == pytest.approx(3_900.0)


def test_a_counter_that_starts_again_at_zero_was_reset() -> None:
    judge, _ = steady()
    assert judge.feed(at(6), 0.0) is None
    assert judge.feed(at(7), 0.0) is None
    assert judge.feed(at(8), MJ_PER_SECOND) == [Move(at(6), 0.0, Unknown.COUNTER_RESET), Move(at(8), 100.0)]
    assert judge.rejected == 0


def test_a_reset_of_a_counter_that_was_low_is_still_one() -> None:
    judge, _ = steady(start_mj=0.0, seconds=2)
    assert judge.feed(at(3), 10_000.0) is None
    assert judge.feed(at(4), 110_000.0) == [Move(at(3), 0.0, Unknown.COUNTER_RESET), Move(at(4), 100.0)]


def test_a_jump_that_lasts_is_a_gap_and_not_energy() -> None:
    judge, mj = steady()
    high = mj + 5e6
    assert judge.feed(at(6), high) is None
    assert judge.feed(at(7), high + MJ_PER_SECOND) is None
    assert judge.feed(at(8), high + 2 * MJ_PER_SECOND) == [
        Move(at(6), 0.0, Unknown.COUNTER_JUMP),
        Move(at(7), 100.0),
        Move(at(8), 100.0),
    ]


def test_time_does_not_make_a_jump_plausible() -> None:
    judge, mj = steady()
    high = mj + 2e6
    moves = [judge.feed(at(6 + k / 4), high + k / 4 * MJ_PER_SECOND) for k in range(12)]
    assert next(move for found in moves if found for move in found).gap == Unknown.COUNTER_JUMP


def test_a_first_reading_of_zero_does_not_make_all_that_was_ever_counted_energy() -> None:
    judge = CounterFilter()
    judge.rebase(0, 0.0)
    found = [judge.feed(at(t), 8e6 + t * MJ_PER_SECOND) for t in (1, 2, 3, 4)]
    assert sum(move.joules for moves in found for move in moves or []) == pytest.approx(300.0)


def test_a_device_of_many_kilowatts_is_believed_when_it_goes_on_so() -> None:
    judge = CounterFilter()
    judge.rebase(0, 0.0)
    found = [judge.feed(at(t), t * 8e6) for t in (1, 2, 3, 4)]
    assert sum(move.joules for moves in found for move in moves or []) == pytest.approx(32_000.0)


@pytest.mark.parametrize("modulus", [2.0**32, 2.0**64, 2.0**32 / 1e3, 2.0**64 / 1e3])
def test_a_register_that_wraps_goes_on(modulus: float) -> None:
    judge = CounterFilter()
    judge.rebase(0, modulus - 50_000.0 if modulus < 2**50 else modulus - 65_536.0)
    moves = judge.feed(at(1), 50_000.0)
    assert moves is not None
    assert moves[0].joules == pytest.approx(100.0, rel=0.2)
    assert moves[0].gap is None


def test_a_tiny_step_back_is_noise() -> None:
    judge, mj = steady()
    assert judge.feed(at(5.5), mj - 1.0) is None
    assert judge.feed(at(6), mj + MJ_PER_SECOND) == [Move(at(6), 100.0)]


def test_a_single_zero_of_power_is_no_reading_and_two_are() -> None:
    judge = PowerFilter()
    told = [judge.feed(t, watts) for t, watts in enumerate([100.0, 0.0, 100.0, 0.0, 0.0, 0.0])]
    assert told == [[(0, 100.0)], [], [(2, 100.0)], [], [(3, 0.0), (4, 0.0)], [(5, 0.0)]]
    assert judge.rejected == 1


def test_power_that_is_0_from_the_first_reading_on_is_no_reading() -> None:
    judge = PowerFilter()
    assert [judge.feed(t, 0.0) for t in range(3)] == [[]] * 3
    assert judge.feed(3, 100.0) == [(3, 100.0)]
    assert judge.rejected == 3


def test_power_beyond_what_the_device_can_draw_is_no_reading() -> None:
    judge = PowerFilter(1_050.0)
    assert judge.feed(0, 1.8e16) == []
    assert judge.feed(1, 2_147_483.6) == []
    assert judge.feed(2, 700.0) == [(2, 700.0)]
    assert judge.rejected == 2


def test_a_fall_that_nothing_follows_is_a_gap_at_the_end() -> None:
    judge, _ = steady()
    assert judge.feed(at(6), 0.0) is None
    assert judge.end() == [Move(at(6), 0.0, Unknown.COUNTER_RESET)]
    assert judge.end() == []
