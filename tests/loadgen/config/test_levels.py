import pytest

from loadgen.config.levels import parse_levels


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
