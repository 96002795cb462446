"""Each closing of windows is bounded, however much waits, and the division stays exact."""

from collections.abc import Iterator, Sequence

import numpy as np
import pytest

from proxy.core import attribution, backlog
from proxy.core.activity.outputs import Streams
from proxy.core.activity.tracks import Group, Track
from proxy.core.activity.work import Work
from proxy.core.attribution import Attributor, Share
from proxy.core.events import Arrive, Device, End, Event, Header, Output, Sample

S = 1_000_000_000
WATTS = 300.0


def rush(seconds: int, per_second: int, period_ns: int, long_s: int) -> Iterator[Event]:
    """One stream of ``long_s``, and many short non-streamed responses of five tokens beside it."""
    events: list[Event] = [Arrive(1, "long", "chat", "m", True, ("gpu0",))]
    events += [Output(n * S // 50, "long", 1) for n in range(1, 50 * long_s)]
    events.append(End(long_s * S, "long", 200, False, 100, 0, 50 * long_s - 1))
    for number in range(seconds * per_second):
        name, t_ns = f"r{number}", 2 + number * S // per_second
        events.append(Arrive(t_ns, name, "chat", "m", False, ("gpu0",)))
        events.append(End(t_ns + S // 10, name, 200, False, 30, 0, 5))
    samples = range(0, (seconds + 2) * S, period_ns)
    events += [Sample(t, "gpu0", energy_mj=t / S * WATTS * 1e3) for t in samples]
    yield Header(1, (Device("gpu0"),))
    yield from sorted(events, key=lambda event: event.t_ns or 0)


class Watched(Attributor):
    """Notes the requests and outputs of each closing."""

    def __init__(self) -> None:
        super().__init__()
        self.closings: list[tuple[int, int]] = []
        work = self.policy.work

        def noted(group: Group, tracks: Sequence[Track], start_ns: int, end_ns: int) -> Work:
            found = work(group, tracks, start_ns, end_ns)
            self.closings.append((len(tracks), len(group.outputs.until(end_ns)[0])))
            return found

        self.policy.work = noted  # type: ignore[method-assign]


def shares(core: Attributor, events: list[Event], batch: int) -> dict[str, Share]:
    for begin in range(0, len(events), batch):
        core.feed_all(events[begin : begin + batch])
    core.flush()
    return {share.request: share for share in core.drain()}


def test_requests_that_waited_for_a_long_stream_are_divided_in_pieces(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(backlog, "CLOSING_WORK", 10_000)
    most = 10_000 // 85
    events = list(rush(20, 100, S // 10, long_s=20))
    core = Watched()
    found = shares(core, events, len(events))
    assert max(tracks for tracks, _ in core.closings) <= 3 * most
    assert len(found) == 2_001
    account = core.accounts()[0]
    total = sum(share.joules or 0.0 for share in found.values()) + account.idle_joules
    assert total == pytest.approx(account.measured_joules, rel=1e-9)
    assert shares(Watched(), events, 97) == found


def test_ends_drive_the_pieces_where_readings_are_rare(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backlog, "CLOSING_WORK", 10_000)
    monkeypatch.setattr(attribution, "_ENDS_OF_CLOSING", 20)
    events = list(rush(40, 100, 5 * S, long_s=12))
    core = Watched()
    core.feed_all(events)
    assert len(core.closings) > 1.5 * len([event for event in events if isinstance(event, Sample)])
    assert len(core.drain()) > 2_000


def test_a_closing_is_cut_in_the_outputs_of_streams(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backlog, "CLOSING_WORK", 5_000)
    events: list[Event] = [Header(1, (Device("gpu0"),))]
    events += [Arrive(1, f"r{n}", "chat", "m", True, ("gpu0",)) for n in range(40)]
    for step in range(1, 1_000):
        events += [Output(step * S // 50 + n, f"r{n}", 1) for n in range(40)]
        if step % 5 == 0:
            events.append(Sample(step * S // 50 + 50, "gpu0", energy_mj=step / 50 * WATTS * 1e3))
    events += [End(20 * S, f"r{n}", 200, False, 100, 0, 999) for n in range(40)]
    events += [
        Sample(20 * S + n * S // 10, "gpu0", energy_mj=(20 + n / 10) * WATTS * 1e3) for n in range(1, 30)
    ]
    core = Watched()
    shares(core, events, len(events))
    assert max(outputs for _, outputs in core.closings) <= 6_000


def test_outputs_that_are_kept_from_closed_windows_do_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backlog, "CLOSING_WORK", 100)
    group = Group(("m",), ("gpu0",), Streams())
    stamps = np.arange(1, 301, dtype=np.int64)
    group.outputs.extend(stamps, np.zeros(300, np.int64), np.ones(300, np.int64))
    assert backlog.cut([], [group], 0, 1_000) == 101
    assert backlog.cut([], [group], 250, 1_000) == 1_000
