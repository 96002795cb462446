from itertools import product

import pytest

from proxy.relay.exchange.states import TRANSITIONS, State, TransitionError, check_transition


@pytest.mark.parametrize(("before", "after"), list(product(State, State)))
def test_a_transition_outside_the_table_raises(before: State, after: State) -> None:
    if after in TRANSITIONS[before]:
        check_transition(before, after)
    else:
        with pytest.raises(TransitionError, match=f"from {before.value} to {after.value}"):
            check_transition(before, after)


def test_every_state_can_close_and_closed_is_final() -> None:
    assert all(State.CLOSED in TRANSITIONS[state] for state in State if state is not State.CLOSED)
    assert not TRANSITIONS[State.CLOSED]


def test_every_state_is_reachable_from_reading() -> None:
    reached = {State.READING}
    while more := {after for state in reached for after in TRANSITIONS[state]} - reached:
        reached |= more
    assert reached == set(State)
