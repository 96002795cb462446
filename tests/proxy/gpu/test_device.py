from pathlib import Path

import pytest

from proxy.gpu.composition import Work
from proxy.gpu.device import Edge, PacedGpu, per_second, step_joules
from proxy.truth.machine import Machine
from proxy.units import NS_PER_SECOND

WORKS = [Work(1, 500), Work(64, 0)]


def test_a_paced_step_lasts_as_long_and_draws_as_much_as_the_model_gives(tmp_path: Path) -> None:
    device, machine = PacedGpu(tmp_path / "gpu"), Machine()
    start, end = device.step(WORKS, lambda: None)
    assert (end - start) / NS_PER_SECOND == pytest.approx(machine.length(500.0, 65.0), rel=1e-6)
    drawn = device._writer.truth_joules(0, end) - device._writer.truth_joules(0, start)
    assert drawn == pytest.approx(step_joules(machine, WORKS), rel=1e-6)


def test_a_paced_step_begins_after_the_one_before_and_no_earlier_than_its_end(tmp_path: Path) -> None:
    device = PacedGpu(tmp_path / "gpu")
    _, first_end = device.step(WORKS, lambda: None)
    second_start, _ = device.step(WORKS, lambda: None)
    assert second_start >= first_end


def test_power_is_that_between_the_first_and_the_last_edge() -> None:
    assert per_second([Edge(0, 0.0), Edge(5, 1.0), Edge(2 * NS_PER_SECOND, 600_000.0)]) == 300.0
    assert per_second([Edge(0, 1.0)]) is None
