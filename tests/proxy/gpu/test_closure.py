from proxy.gpu.closure import EXAMPLE, checks
from proxy.gpu.measured import CostMeter
from tests.proxy.gpu.modelled import Counting, ModelledDevice


def test_on_a_device_without_noise_all_checks_agree() -> None:
    for check in checks(CostMeter(ModelledDevice(), Counting())):
        assert abs(check.difference) < 0.01, check


def test_other_places_are_other_slots_in_the_opposite_order() -> None:
    runner = Counting(slots=16)
    checks(CostMeter(ModelledDevice(), runner))
    orders = {tuple((e.slot, e.context) for e in entries) for entries in runner.given if len(entries) == 4}
    contexts = [work.context for work in EXAMPLE.works()]
    assert tuple(enumerate(contexts)) in orders
    assert tuple((15 - slot, context) for slot, context in reversed(list(enumerate(contexts)))) in orders
