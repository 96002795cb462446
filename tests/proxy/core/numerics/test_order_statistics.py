import subprocess
import sys

import numpy as np
import pytest

from proxy.core.numerics.order_statistics import distinct, median, quantile


@pytest.mark.parametrize("count", [1, 2, 3, 10, 101])
def test_medians_are_those_of_numpy(count: int) -> None:
    values = np.random.default_rng(count).normal(size=count)
    assert median(values) == float(np.median(values))


def test_a_quantile_is_the_least_value_that_holds_its_share() -> None:
    values = np.arange(1.0, 101.0)[::-1]
    assert [quantile(values, share) for share in (0.0, 0.005, 0.5, 0.95)] == [1.0, 1.0, 50.0, 95.0]
    assert quantile(np.array([7.0]), 0.95) == 7.0


def test_distinct_values_are_in_order() -> None:
    assert distinct(np.array([3.0, 1.0, 3.0, 2.0, 1.0])).tolist() == [1.0, 2.0, 3.0]
    assert distinct(np.array([4.0])).tolist() == [4.0]


def test_attribution_does_not_import_masked_arrays() -> None:
    """The import takes 50 ms, which a meter would spend at its first windows."""
    program = (
        "import sys; "
        "from tests.benchmarks.test_core import fleet; from proxy.core.attribution import Attributor; "
        "core = Attributor(); core.feed_all(list(fleet(8, 20_000))); core.flush(); "
        "assert core.drain(); sys.exit('numpy.ma' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False, timeout=60).returncode == 0
