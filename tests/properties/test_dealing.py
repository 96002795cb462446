"""Over however many workers requests are dealt, the core sees the same events in the same order.

From there on everything is a function of what it sees, so that joules are the same to the last bit.
"""

from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.core.attribution import Attributor
from proxy.core.channel import Chunk, Closed, Opened, ToMeter
from proxy.core.events import Arrive, End, Event, Output, Sample
from proxy.core.shares import Share
from proxy.meter.intake import Intake
from tests.properties.timelines import MS, timelines

REORDER_NS = 50 * MS
TICK_NS = 20 * MS


def message_of(event: Event, keys: dict[str, int | None]) -> tuple[str, ToMeter] | None:
    """Whose it is and what a relay says of it; None for what no relay says: not begun, or ended already."""
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
    """What the core sees of requests that are dealt to workers, each as late as it is."""
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
        told += [event for _, event in intake.ripe(now_ns // TICK_NS * TICK_NS)]  # the ticks up to now
        if isinstance(what, Sample):
            intake.add_samples([what])
        elif worker is not None:
            intake.add(connections[worker], what)
    told += [event for _, event in intake.ripe(2**62)]
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
def test_how_requests_are_dealt_to_workers_changes_no_joule(
    events: list[Event], dealt: list[int], delays_ns: list[int]
) -> None:
    names = [event.request for event in events if isinstance(event, Arrive)]
    alone = seen(events, {}, [0])
    several = seen(events, {name: dealt[at % len(dealt)] for at, name in enumerate(names)}, delays_ns)
    assert several == alone
    assert shares(several) == shares(alone)
