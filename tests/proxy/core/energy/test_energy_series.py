from collections.abc import Callable
from itertools import pairwise

import msgspec
import numpy as np
import pytest

from proxy.core.energy.energy_series import EnergySeries
from proxy.core.events import Sample
from proxy.units import NS_PER_MS, NS_PER_SECOND


def counter(*readings: tuple[int, float]) -> EnergySeries:
    series = EnergySeries()
    for t_ms, millijoules in readings:
        series.feed(Sample(t_ms * NS_PER_MS, "gpu0", energy_mj=millijoules, source="nvml"))
    return series


def power(*readings: tuple[int, float]) -> EnergySeries:
    series = EnergySeries()
    for t_ms, watts in readings:
        series.feed(Sample(t_ms * NS_PER_MS, "gpu0", power_mw=watts * 1e3))
    return series


def reading(t_s: int, field: str, value: float) -> Sample:
    return msgspec.structs.replace(Sample(t_s * NS_PER_SECOND, "gpu0"), **{field: value})


def total(series: EnergySeries) -> float:
    assert series.edge_ns is not None
    return series.joules_at(series.edge_ns)


def test_the_first_reading_is_a_baseline_not_energy() -> None:
    series = counter((0, 5_000_000.0))
    assert total(series) == 0.0
    assert series.watts is None


def test_differences_of_the_counter_are_energy() -> None:
    series = counter((0, 1_000.0), (100, 11_000.0), (200, 41_000.0))
    assert total(series) == pytest.approx(40.0)
    assert series.watts == pytest.approx(300.0)
    assert series.source == "nvml"
    assert series.gaps == []


def test_a_counter_that_stands_still_makes_no_edge() -> None:
    series = counter((0, 0.0), (50, 0.0), (100, 10_000.0), (150, 10_000.0), (200, 20_000.0))
    stamps, joules = series.windows(0, 200 * NS_PER_MS)
    assert [t // NS_PER_MS for t in stamps.tolist()] == [0, 100, 200]
    assert joules.tolist() == [0.0, 10.0, 20.0]
    assert series.last_ns == 200 * NS_PER_MS
    assert series.period_ns == pytest.approx(100 * NS_PER_MS)


def both(readings: list[tuple[float, float, float]]) -> EnergySeries:
    series = EnergySeries()
    for t_s, millijoules, watts in readings:
        series.feed(Sample(round(t_s * NS_PER_SECOND), "gpu0", energy_mj=millijoules, power_mw=watts * 1e3))
    return series


def test_a_counter_that_stands_still_for_long_is_not_known_to_be_no_energy() -> None:
    series = counter((0, 7.0), (2000, 7.0), (4000, 7.0), (5000, 7.0), (6000, 7.0))
    assert [(g.start_ns, g.end_ns, g.reason) for g in series.gaps] == [
        (0, 6 * NS_PER_SECOND, "counter_stuck")
    ]
    series.feed(reading(7, "energy_mj", 600e3))
    series.feed(reading(8, "energy_mj", 700e3))
    assert total(series) == pytest.approx(100.0)


def test_a_counter_that_is_refreshed_seldom_is_not_stuck_once_that_is_known() -> None:
    series = EnergySeries()
    for t_s in range(121):
        series.feed(reading(t_s, "energy_mj", t_s // 30 * 3e6))
    assert [g.reason for g in series.gaps] == ["counter_stuck"]
    assert series.gaps[0].end_ns == 30 * NS_PER_SECOND
    assert total(series) == pytest.approx(9_000.0)


def test_a_counter_that_stands_still_beside_power_that_changes_is_replaced_by_it() -> None:
    moving = [(t / 10, t * 10e3, 100.0) for t in range(11)]
    stuck = [(1 + t / 10, 100e3, 150.0 + 50 * (t % 2)) for t in range(1, 51)]
    series = both(moving + stuck)
    assert total(series) == pytest.approx(100.0 + 175.0 * 5, rel=0.02)
    assert series.of_power
    assert series.gaps == []
    assert series.notes() == ("the energy counter stood still beside power: now read by power",)


@pytest.mark.parametrize("shown", [0.0, 5e9])
def test_a_counter_that_never_moved_is_replaced_by_constant_power(shown: float) -> None:
    series = both([(t / 10, shown, 100.0) for t in range(101)])
    assert total(series) == pytest.approx(1_000.0)
    assert series.gaps == []


def test_a_device_that_is_switched_off_is_known_to_use_nothing_from_then_on() -> None:
    on = [(t / 10, t * 3e3, 30.0) for t in range(11)]
    series = both([*on, *((t / 10, 30e3, 0.0) for t in range(11, 101))])
    assert series.edge_ns == 10 * NS_PER_SECOND
    assert total(series) == pytest.approx(30.0, abs=2.0)
    assert series.gaps == []


def test_a_counter_and_power_that_show_nothing_from_the_start_are_a_gap() -> None:
    series = both([(t / 10, 5.0, 0.0) for t in range(151)])
    assert {gap.reason for gap in series.gaps} == {"counter_stuck"}


def test_a_counter_that_was_stuck_is_used_again_when_it_moves_for_a_while() -> None:
    readings, shown = [], 1e6
    for t in range(400):
        shown += 10e3 if not 50 <= t < 150 else 0.0
        readings.append((t / 10, shown, 100.0 + t % 3))
    series = both(readings)
    assert not series.of_power
    assert total(series) == pytest.approx(399 * 10.0, rel=0.02)
    assert series.notes() == ("the energy counter stood still beside power: now read by the counter again",)


def test_a_counter_that_is_blank_for_good_is_replaced_by_power() -> None:
    series = both([(t / 10, 1e6 + t * 10e3 if t < 20 else float(1 << 63), 100.0 + t % 2) for t in range(101)])
    assert total(series) == pytest.approx(1_000.0, rel=0.02)


def test_blanks_and_zeros_among_readings_change_nothing_but_are_counted() -> None:
    odd = {4: float(1 << 63), 8: 140737488355328.0, 12: 0.0, 16: 2147483632.0}
    series = counter(*((t * 1000, odd.get(t, 1e7 + t * 100e3)) for t in range(20)))
    assert total(series) == pytest.approx(1_900.0)
    assert series.gaps == []
    assert series.notes() == ("4 readings that cannot be true were left out",)


def test_the_silence_of_a_sensor_that_shows_blanks_is_named_so() -> None:
    series = counter((0, 1e6), (100, 1.01e6))
    assert series.silence == "no_samples"
    series.feed(Sample(NS_PER_SECOND, "gpu0", energy_mj=float(1 << 63)))
    assert series.silence == "implausible_readings"
    assert series.last_ns == 100 * NS_PER_MS


def test_a_reset_is_a_gap_not_a_negative() -> None:
    series = counter((0, 50_000.0), (100, 60_000.0), (200, 3_000.0), (300, 13_000.0))
    assert total(series) == pytest.approx(20.0)
    assert [(g.start_ns, g.end_ns, g.reason) for g in series.gaps] == [
        (100 * NS_PER_MS, 200 * NS_PER_MS, "counter_reset")
    ]


def test_two_readings_of_one_instant_count_once() -> None:
    assert total(counter((0, 0.0), (100, 10_000.0), (100, 12_000.0), (200, 20_000.0))) == 20.0


def test_power_is_integrated_by_the_trapezoid() -> None:
    assert total(power((0, 100.0), (100, 300.0), (100, 300.0), (200, 300.0))) == pytest.approx(50.0)


def test_constant_power_is_not_lost_to_deduplication() -> None:
    assert total(power(*((t, 100.0) for t in range(0, 2001, 50)))) == pytest.approx(200.0)


def test_power_readings_too_far_apart_are_a_gap() -> None:
    series = power((0, 100.0), (100, 100.0), (5100, 100.0), (5200, 100.0))
    assert total(series) == pytest.approx(20.0)
    assert [g.reason for g in series.gaps] == ["sampling_gap"]


def test_a_device_keeps_the_kind_of_its_first_reading() -> None:
    series = counter((0, 0.0), (100, 10_000.0))
    assert not series.feed(Sample(150 * NS_PER_MS, "gpu0", power_mw=1e6))
    assert not series.feed(Sample(160 * NS_PER_MS, "gpu0"))
    assert total(series) == 10.0


def test_a_silent_sensor_is_a_gap() -> None:
    series = counter((0, 0.0), (100, 10_000.0))
    series.lose(40 * NS_PER_SECOND, "no_samples")
    series.lose(40 * NS_PER_SECOND, "no_samples")
    assert [(g.end_ns, g.reason) for g in series.gaps] == [(40 * NS_PER_SECOND, "no_samples")]
    assert total(series) == 10.0


def test_windows_telescope_over_any_cutting() -> None:
    series = counter((0, 0.0), (100, 10_000.0), (200, 40_000.0), (300, 50_000.0))
    cuts = [t * NS_PER_MS for t in (0, 33, 100, 170, 300)]
    parts = [series.windows(a, b)[1] for a, b in pairwise(cuts)]
    assert sum(p[-1] - p[0] for p in parts) == pytest.approx(50.0, rel=1e-12)


def test_outside_its_edges_a_series_is_flat() -> None:
    series = counter((100, 0.0), (200, 10_000.0))
    assert series.joules_at(0) == 0.0
    assert series.joules_at(NS_PER_SECOND) == 10.0
    assert series.joules_at(150 * NS_PER_MS) == 5.0


def test_forgetting_keeps_the_newest_edge_and_the_sum() -> None:
    series = counter((0, 0.0), (100, 10_000.0), (200, 20_000.0))
    series.forget(150 * NS_PER_MS)
    assert series.first_ns == 100 * NS_PER_MS
    assert total(series) == 20.0
    series.forget(0)
    assert series.first_ns == 100 * NS_PER_MS


def test_an_empty_series_knows_nothing() -> None:
    series = EnergySeries()
    assert series.first_ns is None
    assert series.edge_ns is None
    assert series.last_ns is None
    assert series.period_ns is None


def test_what_was_used_in_a_silence_given_up_is_not_put_behind_it() -> None:
    series = EnergySeries()
    for k in range(3):
        series.feed(Sample(k * NS_PER_SECOND, "gpu0", energy_mj=k * 100_000.0))
    series.lose(40 * NS_PER_SECOND, "no_samples")
    series.feed(Sample(60 * NS_PER_SECOND, "gpu0", energy_mj=6_000_000.0))
    series.feed(Sample(61 * NS_PER_SECOND, "gpu0", energy_mj=6_100_000.0))
    assert series.joules_at(60 * NS_PER_SECOND) == 200.0
    assert series.joules_at(61 * NS_PER_SECOND) == 300.0
    assert [(g.start_ns // NS_PER_SECOND, g.end_ns // NS_PER_SECOND, g.reason) for g in series.gaps] == [
        (2, 60, "no_samples"),
    ]


def test_power_after_a_silence_given_up_is_a_baseline() -> None:
    series = power(*((t, 300.0) for t in range(0, 60_001, 15_000)))
    series.lose(91 * NS_PER_SECOND, "no_samples")
    series.feed(Sample(93 * NS_PER_SECOND, "gpu0", power_mw=300e3))
    series.feed(Sample(108 * NS_PER_SECOND, "gpu0", power_mw=300e3))
    # of the first 15 s, longer than the gap limit while no period is known, nothing is counted
    assert series.joules_at(93 * NS_PER_SECOND) == pytest.approx(300.0 * 45)
    assert total(series) - series.joules_at(93 * NS_PER_SECOND) == pytest.approx(300.0 * 15)
    assert (series.gaps[-1].start_ns, series.gaps[-1].end_ns) == (60 * NS_PER_SECOND, 93 * NS_PER_SECOND)


def test_a_reading_of_the_silence_itself_that_comes_late_does_not_end_it() -> None:
    series = power((0, 300.0), (1000, 300.0))
    series.lose(40 * NS_PER_SECOND, "no_samples")
    for t_s in (30, 41, 42):
        series.feed(reading(t_s, "power_mw", 300e3))
    assert series.joules_at(41 * NS_PER_SECOND) == pytest.approx(300.0)
    assert total(series) == pytest.approx(600.0)
    assert [gap.end_ns for gap in series.gaps] == [41 * NS_PER_SECOND]


@pytest.mark.parametrize("of", [power, counter])
def test_a_reading_at_the_end_of_a_silence_makes_no_window_of_no_length(
    of: Callable[..., EnergySeries],
) -> None:
    series = of((0, 1.0), (1000, 2.0))
    series.lose(40 * NS_PER_SECOND, "no_samples")
    field = "power_mw" if of is power else "energy_mj"
    for t_s in (40, 41, 42):
        series.feed(reading(t_s, field, 1e3 * t_s))
    stamps, _ = series.windows(0, 42 * NS_PER_SECOND)
    assert all(a < b for a, b in pairwise(stamps.tolist()))


@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), -1.0])
@pytest.mark.parametrize("field", ["energy_mj", "power_mw"])
def test_what_is_no_amount_is_no_reading(field: str, wrong: float) -> None:
    series = EnergySeries()
    for t_s, value in ((0, wrong), (1, 1e3), (2, wrong), (3, 5e3)):
        series.feed(reading(t_s, field, value))
    assert total(series) == pytest.approx(4.0 if field == "energy_mj" else 6.0)


def test_windows_in_a_gap_are_told_from_those_that_were_measured() -> None:
    series = counter((0, 1e3), (100, 2e3), (200, 0.0), (300, 1e3))
    edges = np.array([0, 100, 150, 200, 300]) * NS_PER_MS
    assert series.in_gaps(edges).tolist() == [False, True, True, False]


def test_a_doubtful_reading_within_a_gap_adds_no_edge_at_the_end() -> None:
    series = counter((0, 0.0), (1, 1.0), (2, 0.0))
    series.lose(40_000 * NS_PER_MS, series.silence)
    series.end()
    stamps, _ = series.windows(0, 40_000 * NS_PER_MS)
    assert stamps.tolist() == [0, NS_PER_MS, 40_000 * NS_PER_MS]
    assert (series.period_ns or 0.0) > 0.0
