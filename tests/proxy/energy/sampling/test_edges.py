import random

from proxy.energy.sampling.edges import EdgeTracker, clear_moment, measure_period
from proxy.units import NS_PER_MS


def test_period_is_that_of_the_counter() -> None:
    changes = [k * 20 * NS_PER_MS + (k % 2) * NS_PER_MS // 4 for k in range(20)]
    period = measure_period(changes, 400)
    assert period is not None
    assert abs(period - 20 * NS_PER_MS) < NS_PER_MS // 20


def test_a_missed_change_does_not_bend_the_period() -> None:
    changes = [k * 20 * NS_PER_MS for k in range(20) if k != 7]
    assert measure_period(changes, 400) == 20 * NS_PER_MS


def test_late_changes_do_not_add_a_period() -> None:
    late = (0, 1, 9, 2, 0, 8, 9, 0, 1, 9, 0, 3, 8, 0, 0, 2)  # ms
    changes = [k * 20 * NS_PER_MS + ms * NS_PER_MS // 6 for k, ms in enumerate(late)]
    period = measure_period(changes, 400)
    assert period is not None
    assert abs(period - 20 * NS_PER_MS) < NS_PER_MS // 10


def test_changes_without_a_period_have_none() -> None:
    rng = random.Random(1)
    changes = sorted(rng.randrange(450 * NS_PER_MS) for _ in range(20))
    assert measure_period(changes, 400) is None


def test_no_period_without_changes_or_with_one_in_every_poll() -> None:
    assert measure_period([1, 2], 400) is None
    assert measure_period(list(range(390)), 400) is None


def test_tracker_follows_a_drifting_counter() -> None:
    tracker = EdgeTracker(20 * NS_PER_MS, 0)
    true_period = 20 * NS_PER_MS + 2_000
    for k in range(3, 600, 3):
        tracker.hit(k * true_period - 1000, k * true_period)
    edge = 600 * true_period
    assert abs(tracker.due(edge - 5 * NS_PER_MS) - edge) < NS_PER_MS // 10


def test_a_change_between_distant_polls_does_not_move_the_edge() -> None:
    tracker = EdgeTracker(20 * NS_PER_MS, 0)
    tracker.hit(21 * NS_PER_MS, 29 * NS_PER_MS)
    assert tracker.due(1) == 20 * NS_PER_MS


def test_misses_widen_the_window_up_to_a_bound() -> None:
    for period_ms, guard_ms in ((20, 4), (6, 3)):
        tracker = EdgeTracker(period_ms * NS_PER_MS, 0)
        for _ in range(10):
            tracker.missed()
        assert tracker.guard_ns == guard_ms * NS_PER_MS


def test_a_far_edge_is_a_new_phase_not_jitter() -> None:
    tracker = EdgeTracker(20 * NS_PER_MS, 0)
    tracker.hit(27 * NS_PER_MS, 28 * NS_PER_MS)
    assert tracker.last(30 * NS_PER_MS) == 27 * NS_PER_MS + NS_PER_MS // 2


def test_nothing_is_certain_after_many_misses() -> None:
    tracker = EdgeTracker(20 * NS_PER_MS, 0, guard_ns=NS_PER_MS)
    assert tracker.is_clear(10 * NS_PER_MS)
    for _ in range(6):
        tracker.missed()
    assert tracker.lost
    assert not tracker.is_clear(10 * NS_PER_MS)


def test_the_moment_to_read_is_far_from_all_edges() -> None:
    trackers = [EdgeTracker(20 * NS_PER_MS, phase * NS_PER_MS) for phase in (0, 2, 4, 13, 15)]
    moment = clear_moment(trackers, NS_PER_MS)
    assert moment == 7 * NS_PER_MS  # in the span from 4 to 13
    assert clear_moment(trackers, 8 * NS_PER_MS) == 8 * NS_PER_MS  # clear already


def test_the_moment_is_never_early_and_the_best_there_is() -> None:
    trackers = [EdgeTracker(20 * NS_PER_MS, phase * 2 * NS_PER_MS) for phase in range(10)]
    moment = clear_moment(trackers, 101 * NS_PER_MS + 7)
    assert moment >= 101 * NS_PER_MS + 7
    assert min(tracker.clearance(moment) for tracker in trackers) == NS_PER_MS
