import math
from dataclasses import replace

import pytest

from proxy.gpu import forms
from proxy.gpu.composition import Work
from proxy.gpu.device import step_joules
from proxy.gpu.measured import CostMeter
from proxy.truth.machine import Machine
from tests.proxy.gpu.modelled import Counting, ModelledDevice


@pytest.mark.parametrize("overlap", [1.0, 2.0, math.inf])
def test_the_form_of_the_machine_has_the_smallest_residual_and_its_constants(overlap: float) -> None:
    machine = replace(Machine(), overlap=overlap)
    meter = CostMeter(ModelledDevice(machine), Counting())
    found = forms.fit(forms.sweep(meter, forms.grid(16, 1024, 512)))
    best = found[0]
    assert best.overlap == overlap
    assert best.token_s == pytest.approx(machine.token_s, rel=0.05)
    assert best.context_s == pytest.approx(machine.context_s, rel=0.05)
    assert best.energy_residual < 0.01


def test_the_static_share_is_the_part_that_does_not_grow_with_the_requests() -> None:
    machine = replace(Machine(), overlap=1.0)
    share = forms.static_share(CostMeter(ModelledDevice(machine), Counting()), 256)
    one, many = (machine_joules(machine, count) for count in (1, 8))
    assert share == pytest.approx((8 * one - many) / 7 / many, abs=0.02)


def machine_joules(machine: Machine, count: int) -> float:
    return step_joules(machine, [Work(1, 256)] * count)
