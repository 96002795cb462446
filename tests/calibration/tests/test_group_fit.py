import numpy as np
import pytest

from tests.calibration import group_fit
from tests.calibration.models import workload
from tests.calibration.point_errors import TARGETS, compare
from tests.calibration.published import Point
from tests.calibration.tests.synthetic import MIXTURE, SETTING, points


def test_a_known_machine_is_found_again() -> None:
    profile = group_fit.fit(SETTING, points())
    errors = compare(profile, workload(SETTING.task), points())
    assert (errors.medians < TARGETS / 2).all()
    assert abs(profile.seconds.static / 7e-3 - 1) < 0.1
    assert profile.graph_streams is None


def test_a_jump_is_found_where_it_is() -> None:
    jumped = []
    for p in points():
        longer = 1 + (12e-3 if p.batch > 16 else 0.0) / p.median_itl_seconds
        rate, gap = p.tokens_per_second / longer, p.median_itl_seconds * longer
        jumped.append(Point(p.batch, p.output_tokens, p.joules_per_token * longer, p.watts, rate, gap))
    profile = group_fit.fit(SETTING, jumped)
    assert profile.graph_streams == 16
    assert profile.seconds.host == pytest.approx(12e-3, rel=0.2)


def test_one_point_is_enough_for_a_profile() -> None:
    profile = group_fit.fit(MIXTURE, points()[:1])
    errors = compare(profile, workload(MIXTURE.task), points()[:1])
    assert np.all(errors.medians < 0.1)
    assert profile.experts is not None
