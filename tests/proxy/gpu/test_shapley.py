from itertools import permutations

import pytest

from proxy.gpu.shapley import Measured, shapley_by_kind


def cost(counts: tuple[int, ...]) -> float:
    """Return the cost of a step: a constant, and the larger of two loads."""
    first, second = counts
    return 10.0 + max(3.0 * first + second, 2.0 * second)


def by_orders(counts: tuple[int, int]) -> list[float]:
    """Return the mean gain of a player of each kind over all orders of joining."""
    gains = [0.0, 0.0]
    orders = list(permutations([0] * counts[0] + [1] * counts[1]))
    for order in orders:
        members, before = [0, 0], 0.0
        for kind in order:
            members[kind] += 1
            after = cost((members[0], members[1]))
            gains[kind] += after - before
            before = after
    return [gain / len(orders) / count for gain, count in zip(gains, counts, strict=True)]


@pytest.mark.parametrize("counts", [(1, 1), (2, 1), (2, 3), (3, 3)])
def test_the_value_is_the_mean_over_all_orders_of_joining(counts: tuple[int, int]) -> None:
    found = shapley_by_kind(counts, lambda members: Measured(cost(members), 0.0))
    assert [value.mean for value in found] == pytest.approx(by_orders(counts))


def test_the_values_sum_to_the_cost_of_all() -> None:
    found = shapley_by_kind((3, 4), lambda members: Measured(cost(members), 0.0))
    assert 3 * found[0].mean + 4 * found[1].mean == pytest.approx(cost((3, 4)))


def test_a_single_player_pays_all_with_the_error_of_the_measurement() -> None:
    assert shapley_by_kind((1,), lambda _: Measured(5.0, 0.5)) == [Measured(5.0, 0.5)]


def test_errors_add_up_in_squares() -> None:
    """Two players: half of v(1) - v(0), half of v(2) - v(1), so both costs count a half."""
    (value,) = shapley_by_kind((2,), lambda _: Measured(4.0, 0.3))
    assert value.error == pytest.approx(0.5 * 0.3)
