from dataclasses import replace

import pytest

from proxy.simulator.gpu.datasheets import GPUS
from tests.calibration import roofline
from tests.calibration.models import workload
from tests.calibration.published import Model, Setting
from tests.calibration.steady_state import measure
from tests.calibration.tests.synthetic import MIXTURE, SETTING, points


def test_weights_take_bytes_over_bandwidth() -> None:
    (weights,) = (term for term in roofline.terms(SETTING) if term.name == "weights")
    assert weights.seconds == pytest.approx(16e9 / 3.35e12)
    halved = replace(SETTING, model=replace(SETTING.model, precision="fp8"))
    assert {t.name: t.seconds for t in roofline.terms(halved)}["weights"] == pytest.approx(8e9 / 3.35e12)


def test_constants_are_found_again() -> None:
    constants = roofline.fit([(SETTING, points()), (MIXTURE, points(once=5e-3))])
    profile = roofline.predict(SETTING, constants)
    found = measure(profile, workload(SETTING.task), 64, 400.0)
    assert found.tokens_per_second == pytest.approx(points()[3].tokens_per_second, rel=0.2)
    assert found.joules_per_token == pytest.approx(points()[3].joules_per_token, rel=0.2)


def test_predictions_go_the_way_physics_goes() -> None:
    constants = roofline.load()

    def each(gpu: str, gpus: int, model: Model, batch: int) -> tuple[float, float]:
        setting = Setting(model, "lm-arena-chat", gpu, gpus)
        found = measure(roofline.predict(setting, constants), workload(setting.task), batch, 300.0)
        return found.joules_per_token, found.median_itl_seconds

    small, large = (Model(f"New-{b}B", b * 1e9, b * 1e9, "bfloat16") for b in (8, 70))
    assert each("H100", 4, large, 32)[0] > 3 * each("H100", 1, small, 32)[0]
    assert each("H100", 8, large, 32)[1] < each("H100", 4, large, 32)[1], "more GPUs: faster"
    assert each("H100", 8, large, 32)[0] > each("H100", 4, large, 32)[0], "and more energy"
    assert each("B200", 1, small, 64)[1] < each("H100", 1, small, 64)[1]


def test_predicted_profiles_say_that_they_are() -> None:
    profile = roofline.predict(MIXTURE, roofline.load())
    assert "predicted from parameters" in profile.source
    assert profile.cap_watts == 2 * GPUS["H100"].limit_watts
    assert "simulated" in profile.device
