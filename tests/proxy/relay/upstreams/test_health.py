"""The states of one backend, on a clock of the test's."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.config import RelayConfig
from proxy.relay.upstreams.health import Health, State
from proxy.units import NS_PER_SECOND as S

CONFIG = RelayConfig(
    health_interval_seconds=5.0,
    health_failures=3,
    health_successes=2,
    eject_failures=3,
    eject_seconds=1.0,
    eject_max_seconds=4.0,
    slow_start_seconds=10.0,
)


def ejected(now_ns: int = 0) -> Health:
    health = Health(CONFIG, 0)
    assert [health.record_failure(now_ns, "refused") for _ in range(3)] == [False, False, True]
    return health


def test_failures_in_a_row_eject_and_others_do_not() -> None:
    health = Health(CONFIG, 0)
    for _ in range(4):
        health.record_failure(0, "refused")
        health.record_failure(0, "refused")
        health.record_success(0)
    assert health.state == "up"
    health = ejected()
    assert (health.state, health.reason, health.accepts(0)) == ("ejected", "refused", False)


def test_after_the_back_off_one_request_a_back_off_is_let_through() -> None:
    health = ejected()
    assert not health.accepts(S - 1)
    assert health.accepts(S)
    health.record_request(S)
    assert not health.accepts(2 * S - 1), "the probe is under way"
    assert health.accepts(2 * S), "the probe's client left: the next may try"


def test_a_probe_that_fails_doubles_the_back_off_up_to_the_most() -> None:
    health, now, waits = ejected(), 0, []
    for _ in range(5):
        waits.append((health.next_chance_ns(now) - now) // S)
        now = health.next_chance_ns(now)
        health.record_request(now)
        assert not health.record_failure(now, "refused"), "no news"
    assert waits == [1, 2, 4, 4, 4]


def test_a_probe_that_is_answered_brings_it_back_slowly() -> None:
    health = ejected()
    health.record_request(S)
    health.record_success(2 * S)
    assert (health.state, health.reason, health.since_ns) == ("up", None, 2 * S)
    assert [round(health.weight(t * S), 2) for t in (2, 3, 7, 11, 12)] == [0.1, 0.1, 0.5, 0.9, 1.0]
    assert not health.warm_ns


def test_no_slow_start_where_none_is_wanted() -> None:
    health = Health(replace(CONFIG, slow_start_seconds=0.0), 0, slowly=True)
    assert health.weight(0) == 1.0


@pytest.mark.parametrize("failure", ["refused", None])
def test_the_first_check_decides(failure: str | None) -> None:
    health = Health(CONFIG, 0)
    assert health.check(0, failure) == (failure is not None)
    assert health.accepts(0) == (failure is None)


def test_checks_in_a_row_decide_and_others_do_not() -> None:
    health = Health(CONFIG, 0)
    for failure in (None, "a", "b", None, "a", "b"):
        assert not health.check(0, failure)
    assert health.check(7, "c")
    assert (health.state, health.reason, health.since_ns, health.accepts(7)) == ("down", "c", 7, False)
    for failure in (None, "d", None):
        assert not health.check(9, failure)
    assert health.check(9, None)
    assert (health.state, health.weight(9)) == ("up", 0.1)


def test_when_it_may_take_requests_again() -> None:
    health = Health(CONFIG, 0)
    assert health.next_chance_ns(3) == 3
    health.check(0, "refused")
    assert health.next_chance_ns(S) == 10 * S, "two checks must pass, the next is at 5 s"
    health.check(5 * S, None)
    assert health.next_chance_ns(6 * S) == 10 * S
    assert health.next_chance_ns(11 * S) == 11 * S, "the check is late"


def test_checks_that_fail_take_an_ejected_one_down_and_requests_do_not_bring_it_up() -> None:
    health, states = ejected(), list[State]()
    health.check(0, None)
    states.append(health.state)  # that /health answers does not say that requests are
    for _ in range(3):
        health.check(S, "refused")
    states.append(health.state)
    health.record_success(2 * S)
    assert not health.record_failure(2 * S, "late")
    assert [*states, health.state] == ["ejected", "down", "down"]


def test_what_checks_said_holds_no_more_when_they_end() -> None:
    health = Health(CONFIG, 0)
    health.check(0, "refused")
    health.unchecked(S)
    assert (health.state, health.reason, health.checked) == ("up", None, False)
    health = ejected()
    health.unchecked(0)
    assert health.state == "ejected", "that was not said by checks"


def test_new_settings_keep_the_state() -> None:
    health = ejected()
    health.reconfigure(replace(CONFIG, eject_seconds=3.0))
    health.record_request(S)
    assert health.next_chance_ns(S) == 4 * S


@given(
    st.lists(
        st.tuples(st.sampled_from(["taken", "failed", "answered", "passed", "missed"]), st.integers(0, 3 * S))
    )
)
def test_whatever_happens_it_has_a_next_chance_and_takes_it(story: list[tuple[str, int]]) -> None:
    health, now = Health(CONFIG, 0), 0
    for what, later in story:
        now += later
        match what:
            case "taken":
                health.record_request(now)
            case "failed":
                health.record_failure(now, "refused")
            case "answered":
                health.record_success(now)
            case _:
                health.check(now, None if what == "passed" else "refused")
        chance = health.next_chance_ns(now)
        assert chance >= now
        assert health.accepts(now) == (chance == now and health.state != "down")
        assert 0.1 <= health.weight(now) <= 1.0
        assert (health.reason is None) == (health.state == "up")
        most = CONFIG.health_successes * CONFIG.health_interval_seconds
        assert chance - now <= max(CONFIG.eject_max_seconds, most) * S
    for _ in range(CONFIG.health_successes):
        health.check(now, None)
    if health.state == "ejected":
        now = health.next_chance_ns(now)
        assert health.accepts(now)
        health.record_success(now)
    assert health.accepts(now)
