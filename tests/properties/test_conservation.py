"""The law: requests + idle + unattributed are what the meter measured, whatever happens."""

import math

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.core.attribution import Attributor, Share
from proxy.core.events import Arrive, End, Event, Sample
from tests.properties.shift import shifted
from tests.properties.timelines import DEVICES, timelines

POLICIES = ("overlap", "tokens", "steps")

# Two properties of rebuilt steps keep this from holding to the nanosecond:
# - All requests of a step share its energy, from its beginning. A burst of outputs is the end of one step,
#   and if others decode in it, the step began where the one before ended. A request that arrived after this,
#   and has its first token in the burst, gets a part of a window that ended before it arrived. No engine
#   does that (a step includes only requests present when it begins), but outputs of a random timeline may
#   be nanoseconds apart.
# - A step lasts a microsecond at least (``cells``): shorter ones would be lost in the rounding of long sums.
#   Steps that end at one time are placed one after the other, so that the last ends after its requests did.
SPILL_NS = 120 * 1_000  # before and after a life: a microsecond for each event that a timeline may have


def attributed(events: list[Event], policy: str) -> tuple[Attributor, dict[str, Share]]:
    attributor = Attributor(policy)
    for event in events:
        attributor.feed(event)
    attributor.flush()
    shares = attributor.drain()
    assert len({s.request for s in shares}) == len(shares), "one final share a request"
    return attributor, {s.request: s for s in shares}


def counted(events: list[Event], device: str) -> float:
    """Joules between the first reading and the last."""
    values = [
        event.energy_mj
        for event in events
        if isinstance(event, Sample) and event.device == device and event.energy_mj is not None
    ]
    return (values[-1] - values[0]) / 1e3 if values else 0.0


@pytest.mark.parametrize("policy", POLICIES)
@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_what_is_measured_is_shared_and_nothing_else(policy: str, data: st.DataObject) -> None:
    events = data.draw(timelines())
    attributor, shares = attributed(events, policy)
    for account in attributor.accounts():
        to_requests = sum(s.devices.get(account.device, 0.0) for s in shares.values())
        scale = max(account.measured_joules, 1e-3)
        assert math.isclose(to_requests, account.requests_joules, rel_tol=0.0, abs_tol=1e-9 * scale)
        parts = account.requests_joules + account.idle_joules + account.unattributed_joules
        assert math.isclose(parts, account.measured_joules, rel_tol=0.0, abs_tol=1e-9 * scale)
        if not account.gaps:
            assert math.isclose(account.measured_joules, counted(events, account.device), rel_tol=1e-9)


@pytest.mark.parametrize("policy", POLICIES)
@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_no_share_is_negative_or_larger_than_its_bounds(policy: str, data: st.DataObject) -> None:
    attributor, shares = attributed(data.draw(timelines()), policy)
    for account in attributor.accounts():
        assert account.idle_joules >= -1e-9 * max(account.measured_joules, 1.0)
        assert account.unattributed_joules >= 0.0
    for share in shares.values():
        assert all(joules >= 0.0 for joules in share.devices.values())
        assert (share.joules is None) == (share.unknown is not None and not share.devices)
        if share.joules is not None:
            assert share.joules_low is not None
            assert 0.0 <= share.joules_low <= share.joules
            assert share.joules_high is None or share.joules <= share.joules_high
        if share.parts is not None and share.joules is not None:
            parts = share.parts
            total = sum(value or 0.0 for value in msgspec.structs.astuple(parts))
            assert math.isclose(total, share.joules, rel_tol=1e-9, abs_tol=1e-12)


@pytest.mark.parametrize("policy", POLICIES)
@settings(max_examples=60, deadline=None)
@given(events=timelines(), by_ns=st.integers(0, 2**45))
def test_shares_do_not_depend_on_where_the_clock_began(policy: str, events: list[Event], by_ns: int) -> None:
    here, there = attributed(events, policy)[1], attributed(shifted(events, by_ns), policy)[1]
    assert here == there


@pytest.mark.parametrize("policy", POLICIES)
@settings(max_examples=60, deadline=None)
@given(events=timelines())
def test_draining_in_between_changes_nothing(policy: str, events: list[Event]) -> None:
    whole = attributed(events, policy)[1]
    attributor, shares = Attributor(policy), dict[str, Share]()
    for event in events:
        attributor.feed(event)
        if isinstance(event, End):
            attributor.provisional(event.request, event.t_ns)
        shares |= {s.request: s for s in attributor.drain()}
    attributor.flush()
    shares |= {s.request: s for s in attributor.drain()}
    assert shares == whole


@pytest.mark.parametrize("policy", POLICIES)
@settings(max_examples=60, deadline=None)
@given(events=timelines(steps=False))
def test_a_request_gets_nothing_of_windows_outside_its_life(policy: str, events: list[Event]) -> None:
    shares = attributed(events, policy)[1]
    ends = {e.request: e.t_ns for e in events if isinstance(e, End)}
    # Steps and edges meet within the rounding of their seconds: of a large window that is a little of joules.
    rounding = 1e-7 * sum(_around(events, device, 0, None) for device in DEVICES)
    for event in events:
        share = shares.get(getattr(event, "request", ""))
        if not isinstance(event, Arrive) or share is None:
            continue
        end = ends.get(share.request)
        for device in DEVICES:
            last = None if end is None else end + SPILL_NS
            most = _around(events, device, event.t_ns - SPILL_NS, last)
            assert share.devices.get(device, 0.0) <= most * (1 + 1e-6) + rounding + 1e-9


def _around(events: list[Event], device: str, start_ns: int, end_ns: int | None) -> float:
    """Joules of the counter windows that touch a life."""
    readings = [
        (e.t_ns, e.energy_mj / 1e3)
        for e in events
        if isinstance(e, Sample) and e.device == device and e.energy_mj is not None
    ]
    total, edge = 0.0, readings[0] if readings else None
    for now in readings[1:]:
        assert edge is not None
        if now[1] > edge[1] and now[0] > start_ns and (end_ns is None or edge[0] <= end_ns):
            total += now[1] - edge[1]
        if now[1] != edge[1]:  # a reading that shows nothing new ends no window, however late it comes
            edge = now
    return total
