"""Joules of jobs whose states are followed, beside those that a simulated diffusion engine counted.

Virtual time: the engine computes batches step by step, its energy is the counter of a device, and the states
of its jobs are looked at every five seconds, as the proxy does where no client polls.
"""

from dataclasses import dataclass, field

import numpy as np
import pytest

from proxy.api.jobs import JobState
from proxy.core.attribution import Attributor, Share
from proxy.core.events import Arrive, Device, End, Event, Sample, Span
from proxy.relay.jobs.progress import JobProgress
from proxy.schema import DeviceAccount, Units
from proxy.simulator.engine.diffusion import (
    DiffusionEngine,
    DiffusionJob,
    DiffusionProfile,
    Shape,
    StepCosts,
)
from proxy.units import NS_PER_SECOND

S = NS_PER_SECOND
IDLE_WATTS = 80.0
PROFILE = DiffusionProfile(
    *("film", "gpu", "video", 1, IDLE_WATTS, 480, 320, 49, 16, 20, 4),
    StepCosts(0.2, 0.05, 0.0),
    StepCosts(60.0, 25.0, 0.0),
)
POLL_SECONDS = 5.0
SAMPLE_SECONDS = 0.5
QUIET_SECONDS = 20.0  # before the first job and after the last
HOUR_NS = 3600 * S


@dataclass
class Work:
    """A request: ``cancel`` is when its client cancelled it. The rest is what happened, in seconds."""

    name: str
    at: float
    steps: int
    samples: int = 1
    cancel: float | None = None
    begin: float | None = None
    end: float = 0.0
    job: DiffusionJob = field(init=False)

    def __post_init__(self) -> None:
        self.job = DiffusionJob(self.name, self.samples, Shape(480, 320, 49, self.steps))

    @property
    def truth(self) -> float:
        return self.job.joules.static + self.job.joules.decode


def compute(works: list[Work]) -> list[tuple[float, float]]:
    """Let the engine do the work; return its energy over time, as points (seconds, joules)."""
    engine, t, joules = DiffusionEngine(PROFILE), 0.0, 0.0
    by_name, waiting = {work.name: work for work in works}, sorted(works, key=lambda work: work.at)
    points = [(0.0, 0.0)]
    while waiting or not engine.idle:
        while waiting and waiting[0].at <= t:
            engine.submit(waiting.pop(0).job)
        for work in works:
            if work.cancel is not None and work.cancel <= t:
                engine.cancel(work.job)
        plan = engine.plan()
        if plan is None:
            following = waiting[0].at if waiting else t
            joules, t = joules + IDLE_WATTS * (following - t), following
        else:
            for job in plan.jobs:
                by_name[job.name].begin = by_name[job.name].begin or t
            t, joules = t + plan.seconds[0], joules + plan.joules[0]
            for job in engine.take(plan, 1.0)[0]:
                by_name[job.name].end = t
        points.append((t, joules))
    return [*points, (t + QUIET_SECONDS, joules + IDLE_WATTS * QUIET_SECONDS)]


def looks(work: Work, device: str) -> list[Event]:
    """Return the events of one job: spans as the relay reports them, and its end as it is seen."""
    at, t = round(work.at * S), work.at
    events: list[Event] = [Arrive(at, work.name, "videos", "film", devices=(device,))]
    progress = JobProgress(at)
    last = min(work.end or 1e9, work.cancel or 1e9)
    while t < last:
        begin, whole = work.begin, work.end - (work.begin or 0.0)
        done = 0 if begin is None or t < begin else int(100 * (t - begin) / whole)
        state = JobState("v", "in_progress" if done else "queued", progress=float(done))
        t_ns = round(t * S)
        progress.see(t_ns, state)
        started_ns = progress.started_ns if progress.started_ns is not None else t_ns + HOUR_NS
        events.append(Span(t_ns, work.name, first_token_ns=started_ns, end_ns=progress.end_ns))
        t += POLL_SECONDS
    end = work.cancel if work.cancel is not None else t
    cancelled = work.cancel is not None
    return [*events, End(round(end * S), work.name, 200, cancelled, units=Units(frames=49))]


def attribute(
    devices: dict[str, list[Work]], policy: str = "steps"
) -> tuple[dict[str, Share], dict[str, DeviceAccount]]:
    events: list[Event] = []
    for device, works in devices.items():
        seconds, joules = np.array(compute(works)).T
        for at in np.arange(0.0, seconds[-1], SAMPLE_SECONDS):
            mj = 1e3 * float(np.interp(at, seconds, joules))
            events.append(Sample(round(at * S), device, energy_mj=mj))
        for work in works:
            events += looks(work, device)
    core = Attributor(policy, [Device(device) for device in devices])
    core.feed_all(sorted(events, key=lambda event: event.t_ns or 0))
    core.flush()
    return {share.request: share for share in core.drain()}, {a.device: a for a in core.accounts()}


def check(devices: dict[str, list[Work]], within: float = 0.05) -> dict[str, Share]:
    shares, accounts = attribute(devices)
    for device, works in devices.items():
        for work in works:
            share = shares[work.name]
            assert share.joules == pytest.approx(work.truth, rel=within, abs=1.0), work.name
            assert (share.unknown, share.final, share.evidence) == (None, True, "arrivals")
        account = accounts[device]
        whole = account.requests_joules + account.idle_joules + account.unattributed_joules
        assert whole == pytest.approx(account.measured_joules, rel=1e-9)
        assert account.unattributed_joules == 0.0
    return shares


def test_a_job_gets_what_it_used() -> None:
    work = Work("v", QUIET_SECONDS, 100)
    share = check({"gpu0": [work]})["v"]
    assert share.joules_low is not None
    assert share.joules_high is not None
    assert share.joules_low < work.truth < share.joules_high


def test_a_job_that_waits_is_not_charged_for_the_one_before_it() -> None:
    check({"gpu0": [Work("a", QUIET_SECONDS, 400), Work("b", QUIET_SECONDS + 2, 300)]})


def test_jobs_in_one_batch_share_it() -> None:
    check({"gpu0": [Work("a", QUIET_SECONDS, 200), Work("b", QUIET_SECONDS, 200)]})


def test_a_queue_of_jobs_of_different_length_wait_for_each_other() -> None:
    works = [Work(f"v{i}", QUIET_SECONDS + 7 * i, 150 + 50 * i, 1 + i % 3) for i in range(5)]
    check({"gpu0": works})


def test_jobs_of_two_backends_do_not_mix() -> None:
    first = [Work("a", QUIET_SECONDS, 150), Work("b", QUIET_SECONDS + 60, 300)]
    check({"gpu0": first, "gpu1": [Work("c", QUIET_SECONDS + 5, 250), Work("d", QUIET_SECONDS + 40, 100)]})


@pytest.mark.parametrize("others", [False, True])
def test_a_cancelled_job_that_is_being_computed_is_charged_until_its_work_ends(others: bool) -> None:
    works = [Work("v", QUIET_SECONDS, 200, cancel=QUIET_SECONDS + 21)]
    if others:
        works.append(Work("w", QUIET_SECONDS + 3, 200))
    check({"gpu0": works})
    assert works[0].end > QUIET_SECONDS + 45, "the engine computes a batch to its end"


def test_a_job_that_is_cancelled_while_it_waits_is_charged_nothing() -> None:
    works = [Work("a", QUIET_SECONDS, 200), Work("b", QUIET_SECONDS + 2, 100, cancel=QUIET_SECONDS + 12)]
    check({"gpu0": works})
    assert works[1].truth == 0.0


def image(work: Work, device: str) -> list[Event]:
    """Return the events of a request for images, whose response comes when they are computed."""
    end = End(round(work.end * S), work.name, 200, units=Units(images=1))
    if work.cancel is not None:
        end = End(round(work.cancel * S), work.name, None, cancelled=True)
    return [Arrive(round(work.at * S), work.name, "images", "sd", devices=(device,)), end]


def test_a_cancelled_image_is_charged_what_it_burns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.proxy.core.test_tracked_jobs.looks", image)
    check({"gpu0": [Work("a", QUIET_SECONDS, 100), Work("b", 80.0, 100, cancel=85.0)]})
    check({"gpu0": [Work("b", 80.0, 100, cancel=85.0)]})


def test_a_running_job_has_provisional_joules_that_grow() -> None:
    work = Work("v", QUIET_SECONDS, 200)
    seconds, joules = np.array(compute([work])).T
    core = Attributor("steps", [Device("gpu0")])
    events = [
        Sample(round(at * S), "gpu0", energy_mj=1e3 * float(np.interp(at, seconds, joules)))
        for at in np.arange(0.0, seconds[-1], SAMPLE_SECONDS)
    ]
    seen = []
    for event in sorted([*events, *looks(work, "gpu0")], key=lambda event: event.t_ns or 0):
        core.feed(event)
        t = (event.t_ns or 0) / S
        if isinstance(event, Span) and work.at + 10 <= t < work.end:
            share = core.provisional("v", event.t_ns)
            assert share is not None
            assert (share.unknown, share.final) == (None, False)
            seen.append((share.joules or 0.0) / float(np.interp(t, seconds, joules) - IDLE_WATTS * work.at))
    assert len(seen) > 5
    assert seen == pytest.approx([1.0] * len(seen), rel=0.15)


def test_cancelled_work_on_a_device_without_readings_ends_at_once() -> None:
    core = Attributor("steps", [Device("gpu0")])
    core.feed_all([Arrive(0, "i", "images", "sd", devices=("gpu0",)), End(S, "i", None, cancelled=True)])
    (share,) = core.drain()
    assert (share.joules, share.unknown, share.final) == (None, "no_samples", True)


def test_a_second_end_of_cancelled_work_ends_it() -> None:
    core = Attributor("steps", [Device("gpu0")])
    samples = [Sample(at * S, "gpu0", energy_mj=at * 1e5) for at in range(6)]
    cancelled = End(round(2.5 * S), "i", None, cancelled=True)
    core.feed_all([*samples[:2], Arrive(round(1.5 * S), "i", "images", "sd", devices=("gpu0",)), samples[2]])
    core.feed_all([cancelled, End(round(2.7 * S), "i", 200), *samples[3:]])
    core.flush()
    assert [share.request for share in core.drain()] == ["i"]


def test_cancelled_work_ends_though_its_sensor_is_silent() -> None:
    core = Attributor("steps", [Device("gpu0")], stale_s=5.0)
    core.feed_all([Sample(at * S, "gpu0", energy_mj=at * 1e5) for at in range(3)])
    for number in range(50):
        begin = (3 + 10 * number) * S
        core.feed(Arrive(begin, f"i{number}", "images", "sd", devices=("gpu0",)))
        core.feed(End(begin + S, f"i{number}", None, cancelled=True))
    found = core.drain()
    assert len(found) >= 30
    assert {share.unknown for share in found} <= {"no_samples", "before_first_sample"}
