from collections.abc import Callable, Sequence

import pytest

from proxy.core.events import Sample
from proxy.gpu.composition import Work
from proxy.gpu.engine import Step
from proxy.gpu.measured import CostMeter
from proxy.gpu.occupancy import Counter, intervals
from proxy.gpu.served import RequestSet, judge, serve
from tests.proxy.gpu.modelled import Counting, ModelledDevice

S = 1_000_000_000


def step(start: int, end: int, *members: str) -> Step:
    return Step(start * S, end * S, members, (), ())


def test_a_step_occupies_the_engine_until_the_next_one_if_a_member_goes_on() -> None:
    steps = [step(0, 2, "a", "b"), step(3, 5, "a"), step(9, 10, "c")]
    assert intervals(steps) == [3.0, 2.0, 1.0]


def test_idle_power_is_that_before_the_first_step_and_unoccupied_time_is_taken_off() -> None:
    counter = Counter([Sample(t * S, "gpu0", energy_mj=t * 50_000.0 + max(t - 4, 0) * 1e5) for t in range(9)])
    assert counter.idle_watts(4 * S) == pytest.approx(50.0)
    assert counter.occupied_joules(50.0, 4.0) == pytest.approx(800.0 - 50.0 * 4.0)


def test_too_few_readings_before_the_first_step_are_an_error() -> None:
    with pytest.raises(RuntimeError, match="fewer than two readings"):
        Counter([Sample(5 * S, "gpu0", energy_mj=1.0)]).idle_watts(9 * S)


class Stalled(ModelledDevice):
    """A host that plans for ``stall_s`` before each step."""

    stall_s = 0.0

    def step(self, works: Sequence[Work], run: Callable[[], object]) -> tuple[int, int]:
        self.idle(self.stall_s)
        return super().step(works, run)


def test_waits_between_served_steps_are_in_the_truth() -> None:
    """Steps are measured without the stalls that serving has; without the waits closure would be 0.92."""
    device = Stalled()
    meter = CostMeter(device, Counting())
    device.stall_s = 0.004
    requests = RequestSet("two", ((200, 24), (300, 48)), rounds=6)
    served = serve(device, meter.runner, requests, 512)
    device.stall_s = 0.0
    found = judge(meter, requests, served, 64)
    assert found.waiting == pytest.approx(0.13, abs=0.05)
    assert found.closure == pytest.approx(1.0, abs=0.01)
    assert found.scores[0].median < 0.05
