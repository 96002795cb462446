from loadgen.measure.operating_points import best_index, frontier
from loadgen.results.records import Knee
from tests.loadgen.samples import point


def test_best_is_the_most_efficient_within_the_slo() -> None:
    points = [
        point(1, tokens_per_joule=1.0),
        point(2, tokens_per_joule=3.0),
        point(4, tokens_per_joule=5.0, slo_met=False),
        point(8, tokens_per_joule=9.0, generator_bound=True),
        point(16, tokens_per_joule=9.0, stable=False),
    ]
    assert best_index(points) == 1
    assert best_index(points[2:]) is None


def test_best_of_a_search_is_a_point_that_confirmed_a_load() -> None:
    def knee(*confirmed: int) -> Knee:
        return Knee(
            kind="concurrency", level=9.0, low=8.0, high=10.0, reason="", probes=4, seconds=80.0,
            confirmed=confirmed,
        )  # fmt: skip

    points = [
        point(8, tokens_per_joule=9.0),  # a ramp probe, however good it looks
        point(8, tokens_per_joule=3.0),
        point(8, tokens_per_joule=4.0, slo_confidence="undecided"),
        point(8, tokens_per_joule=5.0, stable=False),
        point(8, tokens_per_joule=6.0, generator_bound=True),
    ]
    assert best_index(points, knee(1, 2)) == 1
    assert best_index(points, knee(3, 4)) is None
    assert best_index(points, knee()) is None


def test_frontier() -> None:
    assert frontier([(1.0, 5.0), (2.0, 4.0), (1.5, 3.0), (3.0, 1.0)]) == [0, 1, 3]
