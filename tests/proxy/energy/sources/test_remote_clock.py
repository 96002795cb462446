import random

import pytest

from proxy.energy.sources.remote_clock import RemoteClock
from proxy.units import NS_PER_MS, NS_PER_SECOND


def test_the_narrowest_exchange_decides() -> None:
    clock = RemoteClock()
    assert clock.error_ns is None
    clock.add_exchange(100, 7, 200)
    clock.add_exchange(300, 207, 310)
    assert clock.to_local(207) == 305
    assert clock.error_ns == 5


def test_nothing_is_known_before_the_first_exchange() -> None:
    with pytest.raises(ValueError, match="empty"):
        RemoteClock().to_local(1)


def test_off_by_no_more_than_it_says_on_a_network_with_uneven_delays() -> None:
    rng = random.Random(0)
    offset = -987 * NS_PER_SECOND
    clock = RemoteClock()
    now = 0
    for _ in range(500):
        now += 200 * NS_PER_MS
        there, back = (rng.expovariate(1 / 5) * NS_PER_MS for _ in range(2))
        clock.add_exchange(now, round(now + there + offset), round(now + there + back))
        assert clock.error_ns is not None
        assert abs(clock.to_local(now + offset) - now) <= clock.error_ns + 1


def test_a_drifting_clock_is_followed() -> None:
    clock = RemoteClock()
    for k in range(2000):
        now = k * 200 * NS_PER_MS
        clock.add_exchange(now, round(now * 1.0001), now + NS_PER_MS)
    assert abs(clock.to_local(round(now * 1.0001)) - now) < 2 * NS_PER_MS
