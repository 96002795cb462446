import pytest

from proxy.gpu.composition import Composition, Work
from proxy.gpu.device import Edge, step_joules
from proxy.gpu.measured import CostMeter, coalitions, joules_per_step
from proxy.gpu.shapley import Measured, shapley_by_kind
from tests.proxy.gpu.modelled import Counting, ModelledDevice

MIXED = Composition.of([Work(1, 500), Work(1, 500), Work(300, 0)])


class Stuck(ModelledDevice):
    def edges(self, start_ns: int, end_ns: int) -> list[Edge]:
        del start_ns, end_ns
        return []


@pytest.fixture
def meter() -> CostMeter:
    return CostMeter(ModelledDevice(), Counting())


def test_a_step_is_measured_within_its_standard_error_target(meter: CostMeter) -> None:
    cost = meter.measure(MIXED)
    device = meter.device
    assert isinstance(device, ModelledDevice)
    assert cost.joules.mean == pytest.approx(step_joules(device.machine, MIXED.works()), rel=0.01)
    assert cost.joules.error <= 0.01 * cost.joules.mean
    assert cost.seconds == pytest.approx(device.machine.length(1000.0, 302.0), rel=1e-6)


def test_the_measured_shapley_value_is_that_of_the_machine(meter: CostMeter) -> None:
    """The prompt hides behind the memory of the others in some coalitions: no linear split gives this."""
    machine = ModelledDevice().machine
    exact = shapley_by_kind(
        MIXED.counts, lambda c: Measured(step_joules(machine, MIXED.coalition(c).works()), 0.0)
    )
    found = meter.shapley(MIXED)
    for value, true in zip(found, exact, strict=True):
        assert value.mean == pytest.approx(true.mean, rel=0.02)
        assert value.error < 0.02 * value.mean


def test_a_composition_is_measured_once(meter: CostMeter) -> None:
    meter.shapley(MIXED)
    assert meter.costs.keys() == set(coalitions(MIXED))
    steps = meter.costs[MIXED].steps
    meter.shapley(MIXED)
    assert meter.costs[MIXED].steps == steps


def test_coalitions_are_all_but_the_empty_one() -> None:
    assert len(coalitions(MIXED)) == 3 * 2 - 1


def test_a_step_that_an_edge_divides_counts_in_part() -> None:
    times = [(n * 10, n * 10 + 9) for n in range(100)]
    edges = [Edge(25 + 50 * n, 1000.0 * (25 + 50 * n)) for n in range(15)]
    found = joules_per_step(edges, times)
    assert found is not None
    assert found.mean == pytest.approx(10.0)
    assert found.error == pytest.approx(0.0, abs=1e-9)


def test_too_few_edges_give_no_value() -> None:
    assert joules_per_step([Edge(n, float(n)) for n in range(5)], [(0, 1)]) is None


def test_a_counter_that_does_not_move_is_an_error() -> None:
    device = Stuck()
    with pytest.raises(RuntimeError, match="the energy counter changed fewer than 6 times"):
        CostMeter(device, Counting()).measure(MIXED)
