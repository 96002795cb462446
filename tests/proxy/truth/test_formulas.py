"""Each formula on two requests and three windows of 100 J, against its value by hand."""

import pytest

from proxy.core.events import Sample
from proxy.truth.catalogue import simulate
from proxy.truth.formulas import FORMULAS, SOURCES
from proxy.truth.view import View, read
from tests.proxy.truth.test_view import S, timeline


@pytest.fixture
def view() -> View:
    return read(timeline(*(Sample(n * S, "gpu0", energy_mj=n * 100_000.0) for n in range(4))))


@pytest.mark.parametrize(
    ("name", "a", "b"),
    [
        ("equal-split", 100.0 + 50.0 + 100.0, 50.0),
        ("overlap-weights", 100.0 + 50.0 + 100.0, 50.0),
        # No token in the first window; 21 of 35 in the second.
        ("token-share", 100.0 * 21 / 35 + 100.0, 100.0 * 14 / 35),
        # a is open for half of the first and of the last window; its share there and in the second is capped.
        ("token-share-capped", 12.5 + 25.0 + 12.5, 25.0),
        # From 0.5 to 2.5 s only the second window is complete; 3 of 7 output tokens.
        ("output-average", 100.0 * 3 / 7, 100.0 * 4 / 7),
        # (20 + 4 * 1) of (24 + 10 + 4 * 4) in the second window, all of the third.
        ("weighted-tokens", 100.0 * 24 / 50 + 100.0, 100.0 * 26 / 50),
    ],
)
def test_a_formula_gives_its_value(view: View, name: str, a: float, b: float) -> None:
    assert FORMULAS[name](view) == pytest.approx({"a": a, "b": b}, rel=1e-6)


def test_each_formula_has_a_source() -> None:
    assert FORMULAS.keys() == SOURCES.keys()


def test_no_formula_attributes_more_than_was_measured() -> None:
    found = read(simulate("small GPU", 2).events)
    for name, formula in FORMULAS.items():
        assert sum(formula(found).values()) <= found.joules * (1 + 1e-9), name
