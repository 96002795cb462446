import random

import numpy as np
import pytest

from proxy.core.attribution import Attributor
from proxy.core.energy.outside import STALE_NS, OutsideWork
from proxy.core.events import Arrive, Device, End, Event, Outside, Sample
from proxy.units import NS_PER_MS, NS_PER_SECOND


def _outside(start: float, end: float, share: float) -> Outside:
    return Outside(round(end * NS_PER_SECOND), round(start * NS_PER_SECOND), ("gpu0",), share)


def test_shares_are_means_over_windows() -> None:
    work = OutsideWork()
    work.feed(_outside(1, 2, 0.5))
    work.feed(_outside(2, 3, 1.0))
    edges = np.array([0, 1, 1.5, 2.5, 4]) * NS_PER_SECOND
    assert work.of(edges.astype(np.int64)) == pytest.approx([0, 0.5, 0.75, 1 / 3])


def test_what_overlaps_counts_once_and_shares_stay_shares() -> None:
    work = OutsideWork()
    work.feed(_outside(0, 2, 0.5))
    work.feed(_outside(1, 3, 7.0))
    work.feed(_outside(1, 2, 1.0))  # already known
    edges = (np.array([0, 1, 2, 3]) * NS_PER_SECOND).astype(np.int64)
    assert work.of(edges) == pytest.approx([0.5, 0.5, 1.0])


def test_windows_wait_for_evidence_but_not_for_ever() -> None:
    work = OutsideWork()
    assert work.horizon(9) == 9
    work.feed(_outside(0, 1, 0.0))
    assert work.horizon(2 * NS_PER_SECOND) == NS_PER_SECOND
    assert work.horizon(NS_PER_SECOND + STALE_NS + 1) == NS_PER_SECOND + STALE_NS + 1


def test_it_forgets_what_is_closed() -> None:
    work = OutsideWork()
    for k in range(10):
        work.feed(_outside(k, k + 1, 0.1 * k))
    work.forget(8 * NS_PER_SECOND)
    edges = (np.array([8, 9, 10]) * NS_PER_SECOND).astype(np.int64)
    assert work.of(edges) == pytest.approx([0.8, 0.9])


@pytest.mark.parametrize("policy", ["overlap", "steps", "tokens"])
def test_others_energy_is_unattributed_and_nothing_is_lost(policy: str) -> None:
    """A constant 100 W; ours runs from 2 to 8 s, half of the work from 4 to 6 s was others'."""
    core = Attributor(policy, [Device("gpu0")], settle_s=1.0)
    events: list[Event] = [
        Sample(k * 50 * NS_PER_MS, "gpu0", energy_mj=5_000.0 * k) for k in range(20 * 10 + 1)
    ]
    events += [_outside(k / 2, (k + 1) / 2, 0.5 if 8 <= k < 12 else 0.0) for k in range(20)]
    events.append(Arrive(2 * NS_PER_SECOND, "r", devices=("gpu0",)))
    events.append(End(8 * NS_PER_SECOND, "r", 200, completion_tokens=100, prompt_tokens=10))
    for event in sorted(events, key=lambda e: e.t_ns or 0):
        core.feed(event)
    core.flush()
    (account,) = core.accounts()
    (share,) = core.drain()
    assert account.unattributed_joules == pytest.approx(100.0, rel=0.03)
    assert share.joules == pytest.approx(500.0, rel=0.03)
    total = account.requests_joules + account.idle_joules + account.unattributed_joules
    assert total == pytest.approx(account.measured_joules, rel=1e-9)


def test_conservation_with_any_evidence() -> None:
    rng = random.Random(5)
    core = Attributor("overlap", [Device("gpu0")], settle_s=0.0)
    energy = 0.0
    for k in range(1, 2000):
        t_ns = k * 50 * NS_PER_MS
        energy += rng.uniform(0, 30_000)
        if rng.random() < 0.1:
            core.feed(Arrive(t_ns, f"r{k}", devices=("gpu0",)))
        if rng.random() < 0.2:
            start = t_ns - round(rng.uniform(0, 3) * NS_PER_SECOND)
            core.feed(Outside(t_ns, start, ("gpu0", "gpu9"), rng.random()))
        core.feed(Sample(t_ns, "gpu0", energy_mj=energy))
        if k % 50 == 0:
            core.feed(End(t_ns, f"r{k - 25}", 200))
    core.flush()
    (account,) = core.accounts()
    total = account.requests_joules + account.idle_joules + account.unattributed_joules
    assert total == pytest.approx(account.measured_joules, rel=1e-9)
    assert account.unattributed_joules > 0
    assert min(account.requests_joules, account.idle_joules) >= 0


def test_requests_near_foreign_work_are_marked_until_it_is_long_gone() -> None:
    work = OutsideWork()
    for second in range(10, 20):
        work.feed(_outside(second, second + 1, 0.4))
    work.feed(_outside(20, 60, 0.0))
    work.feed(Outside(62 * NS_PER_SECOND, 61 * NS_PER_SECOND, ("gpu0",), 0.1, "processes"))

    def reason(start: float, end: float | None) -> str | None:
        return work.reason(round(start * NS_PER_SECOND), None if end is None else round(end * NS_PER_SECOND))

    assert reason(0, 7) is None, "gone before it came"
    assert reason(0, 9) == "unseen_traffic", "it takes two looks to see it"
    assert reason(15, 16) == reason(0, 40) == reason(29, 31) == "unseen_traffic"
    assert reason(31, 50) is None
    assert reason(55, None) == "other_processes"
    assert reason(73, None) is None


@pytest.mark.parametrize("policy", ["steps", "tokens", "overlap"])
def test_a_record_beside_unseen_traffic_says_so_and_is_unsure(policy: str) -> None:
    core = Attributor(policy, [Device("gpu0")])
    events: list[Event] = [Sample(i * NS_PER_SECOND // 10, "gpu0", energy_mj=i * 30e3) for i in range(601)]
    events += [_outside(second, second + 1, 0.5 if 10 <= second < 14 else 0.0) for second in range(60)]
    for name, start in (("clean", 2), ("beside", 11), ("after", 40)):
        events.append(Arrive(start * NS_PER_SECOND, name, devices=("gpu0",)))
        events.append(End((start + 2) * NS_PER_SECOND, name, 200, False, 50, 0, 100))
    core.feed_all(sorted(events, key=lambda event: event.t_ns or 0))
    core.flush()
    shares = {share.request: share for share in core.drain()}
    assert [shares[name].unknown for name in ("clean", "beside", "after")] == [None, "unseen_traffic", None]
    beside = shares["beside"]
    assert beside.joules == pytest.approx(300.0), "half of 600 J"
    assert beside.joules_low is not None
    assert beside.joules_high is not None
    assert beside.joules_low < 0.5 * 300.0
    assert beside.joules_high > 1.5 * 300.0
    (account,) = core.accounts()
    assert account.unattributed_joules == pytest.approx(600.0)
