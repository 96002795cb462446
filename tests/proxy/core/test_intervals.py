import math

import numpy as np
import pytest

from proxy.core.activity.tracks import Charge, Track
from proxy.core.energy.accounts import Account
from proxy.core.events import Sample
from proxy.core.intervals import half_width
from tests.proxy.core.scene import MS, add, ended, group

FLOOR = 0.008 * 100.0  # of the joules of each charge here


def account(period_ms: int = 100, gain: float | None = None, *, power: bool = False) -> Account:
    made = Account("gpu0", None, gain)
    for tick in range(5):
        t_ns = tick * period_ms * MS
        made.series.feed(Sample(t_ns, "gpu0", power_mw=1e5) if power else Sample(t_ns, "gpu0", 1e4 * tick))
    return made


def track(charge: Charge, life_ms: float = 10_000, prompt: int | None = 100) -> Track:
    made = add(group(), "r", 0, (), ended("r", life_ms, prompt=prompt, out=5))
    made.charges["gpu0"] = charge
    made.parts = np.array([0.0, 0.0, 0.0, 40.0])
    return made


def test_a_mismatch_with_a_counter_counts_2_6_times() -> None:
    exact, off = Charge(100.0, 500.0, 0.0), Charge(100.0, 500.0, 100.0 * 0.03**2)
    assert half_width(track(exact), [account()], modelled=True) == pytest.approx(FLOOR)
    assert half_width(track(off), [account()], modelled=True) == pytest.approx(math.hypot(2.6 * 3.0, FLOOR))


def test_a_mismatch_with_power_readings_counts_twice() -> None:
    off = Charge(100.0, 500.0, 100.0 * 0.03**2)
    width = half_width(track(off), [account(power=True)], modelled=True)
    assert width == pytest.approx(math.hypot(6.0, FLOOR))


def test_mismatch_over_longer_windows_means_more() -> None:
    off = Charge(100.0, 500.0, 100.0 * 0.03**2)
    wide = half_width(track(off), [account(period_ms=1_000)], modelled=True)
    assert wide == pytest.approx(math.hypot(2.6 * 3.0 * math.sqrt(10.0), FLOOR))


def test_a_young_model_is_doubted_most_for_requests_of_few_updates() -> None:
    charge = Charge(100.0, 500.0, 0.0, young=50.0)
    assert half_width(track(charge, 200), [account()], modelled=True) == pytest.approx(
        math.hypot(50.0, FLOOR)
    )
    assert half_width(track(charge, 5_000), [account()], modelled=True) == pytest.approx(
        math.hypot(5.0, FLOOR)
    )
    running = track(charge)
    running.end = None
    assert half_width(running, [account()], modelled=True) > 50.0


def test_a_guessed_prompt_and_a_sensors_gain_widen_it() -> None:
    charge = Charge(100.0, 500.0, 0.0)
    assert half_width(track(charge, prompt=None), [account()], modelled=True) == pytest.approx(
        math.hypot(40.0, FLOOR)
    )
    assert half_width(track(charge), [account(gain=0.05)], modelled=True) == pytest.approx(
        math.hypot(5.0, FLOOR)
    )


def test_equal_division_is_doubted_by_how_much_was_shared() -> None:
    charge = Charge(100.0, 400.0, 0.0)
    assert half_width(track(charge), [account()], modelled=False) == pytest.approx(0.08 * 200.0)


def test_devices_that_charged_nothing_do_not_count() -> None:
    assert half_width(track(Charge()), [account(), Account("gpu1")], modelled=True) == 0.0
