import pytest

from loadgen.measure.window import Window, drift_seconds_per_second, in_flight, peak_window, steady_window
from loadgen.results.records import Record
from tests.loadgen.samples import record

S = 1_000_000_000


def steady(count: int = 100, lasts: int = S // 10) -> list[Record]:
    return [record(i, scheduled=i * S // 10, end=i * S // 10 + lasts) for i in range(count)]


def test_seconds_and_rules() -> None:
    found = steady_window(steady(), 10 * S, 2.0, None)
    assert (found.start_ns, found.end_ns) == (2 * S, 10 * S)
    assert steady_window(steady(), 10 * S, "none", None) == Window(0, 10 * S)
    assert steady_window([], 10 * S, "auto", None).seconds == 10
    assert "longer than" in steady_window(steady(), S, 5.0, None).notes[0]


def test_a_steady_run_is_complete_and_a_slow_start_is_left_out() -> None:
    assert steady_window(steady(), 10 * S, "auto", None).start_ns == 0
    slow = [record(i, scheduled=i * S // 10, end=i * S // 10 + 3 * S) for i in range(20)]
    mixed = slow + [record(i, scheduled=i * S // 10, end=i * S // 10 + S // 9) for i in range(20, 100)]
    assert steady_window(mixed, 10 * S, "auto", None).start_ns == 2 * S


def test_a_closed_loop_leaves_its_first_round_out() -> None:
    assert steady_window(steady(), 10 * S, "auto", 4).start_ns == S // 10
    slow = [record(i, end=9 * S) for i in range(4)]
    assert "too short" in steady_window(slow, 10 * S, "auto", 4).notes[0]


def test_peak_window_is_the_time_at_full_load() -> None:
    runs = [record(0, scheduled=0, end=9 * S), record(1, scheduled=2 * S, end=5 * S)]
    found = peak_window(runs, 10 * S)
    assert (found.start_ns, found.end_ns) == (2 * S, 5 * S)


def test_in_flight_peak_and_mean() -> None:
    runs = [record(0, scheduled=0, end=4 * S), record(1, scheduled=2 * S, end=4 * S)]
    peak, mean = in_flight(runs, Window(0, 4 * S))
    assert peak == 2
    assert mean == pytest.approx(1.5)
    assert in_flight([], Window(0, S)) == (0, None)


def test_a_growing_queue_is_not_stable() -> None:
    growing = [record(i, scheduled=i * S // 10, end=i * S // 10 + i * S // 20) for i in range(100)]
    slope = drift_seconds_per_second(growing, Window(0, 10 * S))
    assert slope == pytest.approx(0.5, rel=0.01)
    assert drift_seconds_per_second(steady(), Window(0, 10 * S)) is None
    assert drift_seconds_per_second(steady(5), Window(0, 10 * S)) is None
