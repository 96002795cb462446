import numpy as np

from proxy.core.fit.device_model import DeviceModel, group_terms

KEY, OTHER = ("gpu0", "m"), ("gpu0", "n")


def learned(watts: float, windows: int = 50) -> DeviceModel:
    """One group that takes ``watts`` joules a step, ten steps a second, on a device that idles at 50 W."""
    model = DeviceModel()
    slot = model.slot(KEY)
    rng = np.random.default_rng(0)
    busy = rng.integers(0, 11, windows).astype(float)
    rows = np.zeros((windows, 6))
    rows[:, 5 * slot], rows[:, -1] = busy, 1.0 - busy / 10.0
    model.fit.learn(rows, watts * busy + 50.0 * rows[:, -1], np.ones(windows))
    model.learned_ns = 7_000_000_000
    return model


def test_groups_get_slots_as_they_appear() -> None:
    model = DeviceModel()
    assert [model.slot(KEY), model.slot(OTHER), model.slot(KEY)] == [0, 1, 0]
    assert [key for key, _ in model.terms()] == [KEY, OTHER]


def test_youth_passes() -> None:
    assert DeviceModel().youth == 1.0
    assert learned(3.0).youth < 0.05


def test_terms_are_summed_over_the_devices_of_a_group() -> None:
    (terms,) = group_terms({"gpu0": learned(3.0), "gpu1": learned(5.0)}, 9_000_000_000)
    assert terms.devices == ("gpu0", "gpu1")
    assert terms.group == "gpu0,m"
    assert terms.static_j is not None
    assert np.isclose(terms.static_j, 8.0, rtol=0.02)
    assert terms.idle_w is not None
    assert np.isclose(terms.idle_w, 100.0, rtol=0.02)
    assert terms.age_s == 2.0
    assert not terms.prior
    assert terms.static_sd_j is not None
    assert 0.0 < terms.static_sd_j < 0.1
    assert (terms.prefill_j, terms.prefill_sd_j) == (None, None), "nothing of it was seen: no prior is shown"
    assert terms.unseparated == ()


def test_terms_that_always_came_together_are_null_and_named() -> None:
    model = DeviceModel()
    model.slot(KEY)
    rows = np.zeros((50, 6))
    rows[:, 0], rows[:, 1] = 100.0, 800.0  # the same batch of eight in every window
    model.fit.learn(rows, np.full(50, 400.0), np.ones(50))
    (terms,) = group_terms({"gpu0": model}, 0)
    assert (terms.static_j, terms.decode_j) == (None, None)
    assert terms.unseparated == ("static", "decode")
    assert (terms.idle_w, terms.idle_sd_w) == (None, None), "never idle: its watts are not the prior's"


def test_a_model_that_learned_nothing_has_no_terms() -> None:
    model = DeviceModel()
    model.slot(KEY)
    assert group_terms({"gpu0": model}, 0) == []
