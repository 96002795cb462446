import pytest

from loadgen.sweep import best_index, frontier, parse_levels
from tests.loadgen.made import point


def test_levels() -> None:
    assert parse_levels("1..64", "--concurrency", whole=True) == (1, 2, 4, 8, 16, 32, 64)
    assert parse_levels("3..20", "--rate", whole=False) == (3, 6, 12, 20)
    assert parse_levels("1,2,2.5", "--rate", whole=False) == (1, 2, 2.5)
    assert parse_levels("8", "--concurrency", whole=True) == (8,)
    assert parse_levels("8..8", "--concurrency", whole=True) == (8,)


@pytest.mark.parametrize(
    "text", ["", "x", "0", "-1", "1..", "..4", "8..1", "1.5", "1..inf", "nan", "1..٣", "²"]
)
def test_malformed(text: str) -> None:
    with pytest.raises(ValueError, match="--concurrency"):
        parse_levels(text, "--concurrency", whole=True)


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


def test_frontier() -> None:
    assert frontier([(1.0, 5.0), (2.0, 4.0), (1.5, 3.0), (3.0, 1.0)]) == [0, 1, 3]
