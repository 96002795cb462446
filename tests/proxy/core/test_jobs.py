import pytest

from proxy.core.activity.tracks import Track
from proxy.core.attribution import Attributor, Share
from proxy.core.events import Arrive, Device, End, Event, Output, Sample
from proxy.core.jobs import LONGEST_NS, QUIET_NS, is_job
from proxy.schema import DeviceAccount, Units
from proxy.units import NS_PER_SECOND

S = NS_PER_SECOND
GPU = ("gpu0",)
IDLE, BUSY = 80.0, 500.0


def readings(*spans: tuple[float, float]) -> list[Event]:
    """A counter, ten times a second, over spans of (seconds, watts)."""
    events: list[Event] = [Sample(0, "gpu0", energy_mj=0.0)]
    joules, t = 0.0, 0
    for seconds, watts in spans:
        for _ in range(round(seconds * 10)):
            t, joules = t + S // 10, joules + watts / 10
            events.append(Sample(t, "gpu0", energy_mj=1e3 * joules))
    return events


def video(name: str, second: float, status: int | None = 200, route: str = "videos") -> list[Event]:
    start = round(second * S)
    return [Arrive(start, name, route, "film", devices=GPU), End(start + S // 50, name, status)]


def run(*events: Event, policy: str = "steps") -> tuple[dict[str, Share], DeviceAccount]:
    core = Attributor(policy, [Device("gpu0")])
    core.feed_all(sorted(events, key=lambda event: event.t_ns or 0))
    core.flush()
    found = {share.request: share for share in core.drain()}
    (account,) = core.accounts()
    assert sum(s.joules or 0.0 for s in found.values()) == pytest.approx(
        account.requests_joules, rel=1e-9, abs=1e-6
    )
    whole = account.requests_joules + account.idle_joules + account.unattributed_joules
    assert whole == pytest.approx(account.measured_joules, rel=1e-9)
    return found, account


@pytest.mark.parametrize("policy", ["steps", "tokens", "overlap"])
def test_a_jobs_joules_are_unknown_and_unattributed_until_the_device_is_idle_again(policy: str) -> None:
    power = readings((5, IDLE), (30, BUSY), (60, IDLE))
    found, account = run(*power, *video("v", 5.0), policy=policy)
    share = found["v"]
    assert (share.joules, share.unknown, share.final) == (None, "job_not_tracked", True)
    quiet = QUIET_NS / S
    assert account.unattributed_joules == pytest.approx(30 * BUSY + quiet * IDLE, rel=0.02)
    assert account.idle_joules == pytest.approx((5 + 60 - quiet) * IDLE, rel=0.02)


def test_a_pause_shorter_than_the_quiet_time_does_not_end_a_job() -> None:
    power = readings((5, IDLE), (10, BUSY), (8, IDLE), (10, BUSY), (30, IDLE))
    _, account = run(*power, *video("v", 5.0))
    assert account.unattributed_joules > 20 * BUSY


def test_a_job_whose_end_nothing_tells_could_be_running_for_an_hour() -> None:
    count = (LONGEST_NS // S + 600) // 20
    power: list[Event] = [Sample(i * 20 * S, "gpu0", energy_mj=i * 20e6) for i in range(count)]
    _, account = run(*power, *video("v", 0.5))
    assert account.unattributed_joules == pytest.approx(3600e3, rel=0.01)


def test_requests_beside_a_job_are_not_charged_for_it_and_are_unsure() -> None:
    text: list[Event] = [Output(10 * S + i * S // 50, "t", 1) for i in range(1, 501)]
    text += [Arrive(10 * S, "t", devices=GPU, stream=True), End(20 * S, "t", 200, False, 50, 0, 500)]
    found, account = run(*readings((5, IDLE), (30, BUSY), (20, IDLE)), *video("v", 5.0), *text)
    beside = found["t"]
    assert beside.joules is not None
    assert beside.joules_low is not None
    assert beside.joules_high is not None
    assert beside.joules < 0.8 * 10 * BUSY
    assert beside.joules_high - beside.joules_low > 0.5 * beside.joules
    assert account.unattributed_joules > 20 * BUSY


def test_a_refused_video_is_no_job() -> None:
    found, account = run(*readings((5, IDLE), (30, BUSY)), *video("v", 5.0, 400))
    assert found["v"].unknown is None
    assert account.unattributed_joules == 0.0
    assert not is_job(Track(Arrive(0, "x", "videos"), end=End(S, "x", 200, units=Units(frames=49))))
    assert is_job(Track(Arrive(0, "x", "videos"), end=End(S, "x", None, True))), "the client left: it may run"
    assert not is_job(Track(Arrive(0, "x", "images")))


def test_a_running_post_has_no_provisional_joules() -> None:
    core = Attributor("steps", [Device("gpu0")])
    core.feed_all([*readings((2, IDLE)), Arrive(2 * S, "v", "videos", devices=GPU)])
    share = core.provisional("v", 2 * S + S // 2)
    assert share is not None
    assert (share.joules, share.unknown, share.final) == (None, "job_not_tracked", False)


def test_slots_of_jobs_are_given_back() -> None:
    core = Attributor("steps", [Device("gpu0")])
    power = readings((5, IDLE), (30, BUSY), (40, IDLE))
    core.feed_all(sorted([*power, *video("a", 5.0), *video("b", 6.0)], key=lambda event: event.t_ns or 0))
    (group,) = core._groups.values()
    assert not group.tracks
    assert not core._jobs
