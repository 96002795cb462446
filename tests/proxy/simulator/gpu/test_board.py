import math

import pytest

from proxy.simulator.gpu.board import Board


def test_power_is_what_is_asked_for_without_a_ramp() -> None:
    board = Board(70.0)
    assert board.step(500.0, 0.01) == 500.0
    assert board.idle(0.0)[1] == 70.0


def test_power_rises_with_a_first_order_lag_and_its_mean_is_the_integral() -> None:
    board, times = Board(100.0, ramp_seconds=0.02), 400
    energy = sum(board.step(500.0, 1e-4) * 1e-4 for _ in range(times))
    seconds = times * 1e-4
    assert board.level == pytest.approx(500 - 400 * math.exp(-2))
    exact = 500 * seconds - 400 * 0.02 * (1 - math.exp(-2))
    assert energy == pytest.approx(exact)
    other = Board(100.0, ramp_seconds=0.02)
    assert other.step(500.0, seconds) * seconds == pytest.approx(exact), "however many steps it takes"


def rested(board: Board, seconds: float) -> list[tuple[float, float]]:
    """The pieces of so much idle time: when each ends, and its watts."""
    passed, pieces = 0.0, []
    while passed < seconds:
        lasts, watts = board.idle(passed)
        lasts = min(lasts, seconds - passed)
        board.rest(passed, watts, lasts)
        passed += lasts
        pieces.append((passed, watts))
    return pieces


def test_it_falls_to_idle_and_later_to_deep_idle() -> None:
    board = Board(70.0, ramp_seconds=0.05, deep_watts=40.0, deep_seconds=10.0)
    board.step(600.0, 1.0)
    pieces = rested(board, 30.0)
    watts = [each for _, each in pieces]
    assert watts == sorted(watts, reverse=True)
    assert watts[0] > 300
    assert [each for end, each in pieces if 5 < end <= 10][-1] == pytest.approx(70.0, abs=0.5)
    assert watts[-1] == pytest.approx(40.0, abs=0.5)
    assert min(each for end, each in pieces if end <= 10.0) >= 70.0
    assert board.step(600.0, 1.0) < 600.0


def test_without_deep_idle_and_heat_one_piece_lasts_for_ever() -> None:
    assert Board(70.0).idle(0.0) == (math.inf, 70.0)


def test_it_warms_up_throttles_and_cools_down() -> None:
    board = Board(140.0, devices=2, hot=60.0)
    assert board.celsius == pytest.approx(34.2)
    assert board.limit() is None
    for _ in range(100):
        board.step(1400.0, 1.0)
    assert board.celsius == pytest.approx(72.0, abs=0.5)
    limit = board.limit()
    assert limit == pytest.approx(2 * (57.5 - 30) / 0.06)
    for _ in range(100):
        board.step(limit or 0.0, 1.0)
    assert board.celsius == pytest.approx(57.5, abs=0.5), "it settles just below"
    assert board.limit() == limit, "and stays throttled there"
    rested(board, 60.0)
    assert board.limit() is None
