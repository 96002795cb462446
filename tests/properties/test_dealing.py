"""The core receives the same events in the same order, for every distribution of requests to workers.

Attribution is a pure function of these events, so that energy is the same to the last bit.
"""

from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.core.attribution import Attributor
from proxy.core.events import Arrive, End, Event, Output, Sample
from proxy.core.shares import Share
from proxy.ipc import Chunk, Closed, Opened, ToMeter
from proxy.meter.intake import Intake
from tests.properties.timelines import MS, timelines

REORDER_NS = 50 * MS
TICK_NS = 20 * MS


def message_of(event: Event, keys: dict[str, int | None]) -> tuple[str, ToMeter] | None:
    """Return the request and a relay's message of it; None for an event before its start or after its end."""
    if isinstance(event, Arrive):
        key = keys[event.request] = len(keys)
        return event.request, Opened(key, event)
    told = keys.get(event.request) if isinstance(event, Output | End) else None
    if told is None:
        return None
    match event:
        case Output():
            return event.request, Chunk(told, event.t_ns, -1 if event.tokens is None else event.tokens)
        case End():
            keys[event.request] = None
            return event.request, Closed(told, event)
        case _:
            return None


def seen(events: list[Event], worker_of: dict[str, int], delays_ns: list[int]) -> list[Event]:
    """Return the events that reach the core for requests distributed to workers, each with its delay."""
    intake = Intake(REORDER_NS, lambda _: ("gpu0",))
    connections = [intake.connected() for _ in delays_ns]
    keys: dict[str, int | None] = {}
    coming: list[tuple[int, int | None, ToMeter | Sample]] = []
    for event in events:
        if isinstance(event, Sample):
            coming.append((event.t_ns, None, event))
        elif (found := message_of(event, keys)) is not None:
            own = worker_of.get(found[0], 0)
            coming.append(((event.t_ns or 0) + delays_ns[own], own, found[1]))
    coming.sort(key=lambda one: one[0])
    told: list[Event] = []
    for now_ns, worker, what in coming:
        told += [event for _, event in intake.release(now_ns // TICK_NS * TICK_NS)]  # the ticks up to now
        if isinstance(what, Sample):
            intake.add_samples([what])
        elif worker is not None:
            intake.add(connections[worker], what)
    told += [event for _, event in intake.release(2**62)]
    assert intake.late == 0
    return told


def shares(events: list[Event]) -> dict[str, Share]:
    attributor = Attributor("steps")
    for event in events:
        attributor.feed(event)
    attributor.flush()
    return {share.request: share for share in attributor.drain()}


@settings(max_examples=150, deadline=None)
@given(
    events=timelines(steps=False),
    dealt=st.lists(st.integers(0, 2), min_size=40, max_size=40),
    delays_ns=st.lists(st.integers(0, REORDER_NS - TICK_NS), min_size=3, max_size=3),
)
def test_the_distribution_of_requests_to_workers_does_not_change_their_energy(
    events: list[Event], dealt: list[int], delays_ns: list[int]
) -> None:
    names = [event.request for event in events if isinstance(event, Arrive)]
    alone = seen(events, {}, [0])
    several = seen(events, {name: dealt[at % len(dealt)] for at, name in enumerate(names)}, delays_ns)
    assert several == alone
    assert shares(several) == shares(alone)
