from hypothesis import given
from hypothesis import strategies as st

from loadgen.selfcheck.known_power import KnownDevice

S = 1_000_000_000


def test_joules_are_the_integral_of_a_step() -> None:
    device = KnownDevice(100.0, 250.0)
    device.changed(2 * S, busy=True)
    device.changed(2 * S + 1, busy=True)  # no change
    device.changed(5 * S, busy=False)
    whole = device.account(0, 6 * S)
    assert whole.requests_joules == 750.0
    assert whole.idle_joules == 300.0
    assert device.account(3 * S, 4 * S).measured_joules == 250.0
    assert device.account(5 * S, 6 * S).measured_joules == 100.0


@given(st.lists(st.integers(0, 10**10), max_size=20), st.integers(0, 10**10))
def test_windows_add_up(edges: list[int], middle: int) -> None:
    device = KnownDevice()
    for number, edge in enumerate(sorted(edges)):
        device.changed(edge, busy=number % 2 == 0)
    parts = device.account(0, middle).measured_joules + device.account(middle, 10**10).measured_joules
    assert abs(parts - device.account(0, 10**10).measured_joules) < 1e-6
