"""Units of jobs."""

import pytest

from proxy.api.jobs import read_job
from proxy.relay.jobs.units import units_of
from proxy.schema import Units


@pytest.mark.parametrize(
    ("body", "units"),
    [
        (
            b'"size":"832x480","seconds":"5.4","num_frames":81,"num_inference_steps":50',
            Units(pixels=399_360, frames=81, steps=50, seconds=5.4),
        ),
        (b'"size":"auto","seconds":-1,"num_frames":-1', Units()),
        (b'"size":null,"seconds":NaN', Units()),
        (b'"size":"0x0","num_frames":0,"num_inference_steps":0', Units()),
    ],
)
def test_units_are_those_that_the_state_has(body: bytes, units: Units) -> None:
    state = read_job(b'{"status":"completed",%b}' % body)
    assert state is not None
    assert units_of(state) == units


def test_a_state_adds_to_the_units_of_the_states_before() -> None:
    known = Units(pixels=100, frames=81, steps=50)
    state = read_job(b'{"status":"completed","seconds":"4","num_frames":49}')
    assert state is not None
    assert units_of(state, known) == Units(pixels=100, frames=49, steps=50, seconds=4.0)
