# Compiled by mypyc: see setup.py.
r"""States of an exchange and the transitions between them, as a table.

    READING ------> CONNECTING <---+          a backend is chosen; the next one, if it cannot be reached
       |               |           |
       +------------> WAITING -----+          the request is sent; sent again where that is safe (``replay``)
                       |  |   \
              HOLDING <+  |    TUNNEL         an error after which it may be sent again; 101
                 |        |
                 +-> FORWARDING <-> AWAITING_ENERGY

Every state leads to CLOSED, which is final. An illegal transition is a bug of this program: it raises
:class:`TransitionError` rather than going on with a connection whose state is not known.
"""

from enum import Enum
from typing import Final


class State(Enum):
    """State of one exchange."""

    READING = "reading"  # the request body is collected; no backend has been chosen
    CONNECTING = "connecting"  # a connection to the chosen backend is being opened
    WAITING = "waiting"  # the request was sent; the final response head has not been received
    HOLDING = "holding"  # an error response is held until it is known whether the request is sent again
    FORWARDING = "forwarding"  # the response goes to the client as it is received
    AWAITING_ENERGY = "awaiting energy"  # the rest of the response waits for the meter's reply
    TUNNEL = "tunnel"  # both sides switched protocols (101): bytes pass in both directions
    CLOSED = "closed"  # the backend connection was released, and the client got its response or an error


TRANSITIONS: Final[dict[State, frozenset[State]]] = {
    State.READING: frozenset((State.CONNECTING, State.WAITING, State.CLOSED)),
    State.CONNECTING: frozenset((State.CONNECTING, State.WAITING, State.CLOSED)),
    State.WAITING: frozenset(
        (State.CONNECTING, State.WAITING, State.HOLDING, State.FORWARDING, State.TUNNEL, State.CLOSED)
    ),
    State.HOLDING: frozenset((State.CONNECTING, State.WAITING, State.FORWARDING, State.CLOSED)),
    State.FORWARDING: frozenset((State.AWAITING_ENERGY, State.CLOSED)),
    State.AWAITING_ENERGY: frozenset((State.FORWARDING, State.CLOSED)),
    State.TUNNEL: frozenset((State.CLOSED,)),
    State.CLOSED: frozenset(),
}


class TransitionError(Exception):
    """The exchange cannot go from its state to the requested one."""


def check_transition(before: State, after: State) -> None:
    """Raise :class:`TransitionError` unless the table allows the step from ``before`` to ``after``."""
    if after not in TRANSITIONS[before]:
        raise TransitionError(f"an exchange cannot go from {before.value} to {after.value}")
