import msgspec
import pytest

from proxy.core.attribution import Attributor, Share
from proxy.core.events import Arrive, Device, End, Event, Header, Output, Outside, Sample, Span, Step
from proxy.schema import Parts
from proxy.units import NS_PER_SECOND

S = NS_PER_SECOND
GPU = ("gpu0",)


def steady(watts: float, seconds: float, device: str = "gpu0", hz: int = 10) -> list[Event]:
    """A counter at constant power from 0 to ``seconds``."""
    count = round(seconds * hz) + 1
    return [Sample(i * S // hz, device, energy_mj=7.0 + i * watts * 1e3 / hz) for i in range(count)]


def run(*events: Event, devices: tuple[str, ...] = GPU) -> tuple[Attributor, dict[str, Share]]:
    attributor = Attributor("overlap", [Device(d) for d in devices])
    for event in sorted(events, key=lambda e: e.t_ns or 0):
        attributor.feed(event)
    attributor.flush()
    shares = attributor.drain()
    assert len({s.request for s in shares}) == len(shares), "one final share a request"
    return attributor, {s.request: s for s in shares}


def law(attributor: Attributor, shares: dict[str, Share]) -> None:
    for account in attributor.accounts():
        to_requests = sum(s.devices.get(account.device, 0.0) for s in shares.values())
        assert to_requests == pytest.approx(account.requests_joules, rel=1e-9, abs=1e-9)
        parts = to_requests + account.idle_joules + account.unattributed_joules
        assert parts == pytest.approx(account.measured_joules, rel=1e-9, abs=1e-9)


def test_a_request_alone_gets_what_was_measured_in_its_life() -> None:
    attributor, shares = run(*steady(300, 5), Arrive(S, "a", devices=GPU), End(3 * S, "a"))
    share = shares["a"]
    assert share.joules == pytest.approx(600.0)
    assert share.joules_low is not None
    assert share.joules_high is not None
    assert share.joules_low <= 600.0 <= share.joules_high
    assert (share.final, share.unknown, share.policy) == (True, None, "overlap")
    assert attributor.accounts()[0].idle_joules == pytest.approx(900.0)
    law(attributor, shares)


def test_overlapping_requests_split_each_instant_equally() -> None:
    attributor, shares = run(
        *steady(300, 5),
        Arrive(S, "a", devices=GPU),
        Arrive(2 * S, "b", devices=GPU),
        Arrive(2 * S, "c", devices=GPU),
        End(3 * S, "a"),
        End(4 * S, "b", cancelled=True),
        End(4 * S, "c", status=500),
    )
    assert shares["a"].joules == pytest.approx(300 + 100)
    assert shares["b"].joules == pytest.approx(100 + 150)
    assert shares["c"].joules == pytest.approx(100 + 150)
    low, high = shares["b"].joules_low, shares["b"].joules_high
    assert low is not None
    assert high is not None
    assert low < 100 + 150 < high, "never alone: equal division is a guess"
    law(attributor, shares)


def test_a_request_on_two_devices_has_a_share_of_each() -> None:
    both = ("gpu0", "gpu1")
    attributor, shares = run(
        *steady(100, 4),
        *steady(200, 4, "gpu1", hz=8),
        Arrive(S, "a", devices=both),
        Arrive(S, "b", devices=("gpu1",)),
        End(2 * S, "a"),
        End(2 * S, "b"),
        devices=both,
    )
    assert shares["a"].devices == pytest.approx({"gpu0": 100.0, "gpu1": 100.0})
    assert shares["b"].devices == pytest.approx({"gpu1": 100.0})
    law(attributor, shares)


def test_no_samples_is_unknown_not_zero() -> None:
    _, shares = run(Arrive(S, "a", devices=GPU), End(2 * S, "a"))
    assert shares["a"].joules is None
    assert shares["a"].unknown == "no_samples"


def test_a_request_on_no_device_is_unknown() -> None:
    _, shares = run(*steady(1, 2), Arrive(S, "a"), End(2 * S, "a"))
    assert shares["a"].unknown == "no_device"


def test_a_reset_within_its_life_makes_a_request_incomplete() -> None:
    samples: list[Event] = [Sample(i * S, "gpu0", energy_mj=e) for i, e in enumerate((9e3, 10e3, 0.0, 1e3))]
    attributor, shares = run(*samples, Arrive(S // 2, "a", devices=GPU), End(5 * S // 2, "a"))
    share = shares["a"]
    assert share.unknown == "counter_reset"
    assert share.joules == pytest.approx(1.0), "what was measured of it"
    assert share.joules_high is None
    law(attributor, shares)


def test_life_before_the_first_and_after_the_last_reading_is_unknown() -> None:
    samples = [Sample(S + i * S, "gpu0", energy_mj=i * 1e3) for i in range(3)]
    _, early = run(*samples, Arrive(0, "a", devices=GPU), End(2 * S, "a"))
    assert early["a"].unknown == "before_first_sample"
    _, late = run(*samples, Arrive(2 * S, "a", devices=GPU), End(9 * S, "a"))
    assert late["a"].unknown == "after_last_sample"


def test_a_request_that_never_ends_is_closed_by_flush() -> None:
    attributor, shares = run(*steady(100, 3), Arrive(S, "a", devices=GPU))
    assert shares["a"].joules == pytest.approx(200.0)
    law(attributor, shares)


def test_a_record_is_final_when_the_windows_that_cover_it_are_closed() -> None:
    attributor = Attributor("overlap", [Device("gpu0")])
    for event in (
        Sample(0, "gpu0", energy_mj=0.0),
        Arrive(S // 10, "a", devices=GPU),
        Output(S // 5, "a", 1),
        Sample(S, "gpu0", energy_mj=100e3),
        End(S + S // 2, "a"),
    ):
        attributor.feed(event)
    assert attributor.drain() == []
    before = attributor.provisional("a", S + S // 2)
    assert before is not None
    assert not before.final
    assert before.joules == pytest.approx(140.0), "90 closed, half a second at the last power"
    attributor.feed(Sample(2 * S, "gpu0", energy_mj=180e3))
    (share,) = attributor.drain()
    assert share.joules == pytest.approx(90.0 + 40.0)
    assert attributor.provisional("a", 3 * S) is None
    assert attributor.closed_ns() == 2 * S


def streams(count: int, seconds: float, joules: float) -> list[Event]:
    """``count`` answers streamed side by side, a token every 20 ms, at ``joules`` a step."""
    events: list[Event] = [Arrive(0, f"r{k}", devices=GPU, stream=True) for k in range(count)]
    steps = round(seconds * 50)
    for step in range(1, steps + 1):
        events += [Output(step * S // 50, f"r{k}", 1) for k in range(count)]
        if step % 5 == 0:
            events.append(Sample(step * S // 50, "gpu0", energy_mj=1e3 * joules * step))
    return [Sample(0, "gpu0", energy_mj=0.0), *events]


def total(parts: Parts | None) -> float:
    assert parts is not None
    return sum(value or 0.0 for value in msgspec.structs.astuple(parts))


def test_parts_that_a_constant_batch_does_not_tell_apart_are_null_and_their_joules_are_kept() -> None:
    attributor = Attributor("steps", [Device("gpu0")])
    attributor.feed_all(streams(4, 12, 5.0))
    attributor.feed_all(End(12 * S, f"r{k}", 200, False, 100, 0, 600) for k in range(4))
    attributor.flush()
    for share in attributor.drain():
        assert share.joules == pytest.approx(750.0, rel=0.02)
        assert share.parts is not None
        assert (share.parts.static, share.parts.decode) == (None, None)
        assert total(share.parts) == pytest.approx(share.joules, rel=1e-9)
        assert share.parts.unseparated > 0.5 * total(share.parts)
    (terms,) = attributor.terms()
    assert {"static", "decode"} <= set(terms.unseparated)
    assert (terms.static_j, terms.decode_j, terms.idle_w) == (None, None, None)


def test_provisional_parts_sum_to_the_provisional_joules() -> None:
    attributor = Attributor("steps", [Device("gpu0")])
    attributor.feed_all(streams(2, 2, 5.0))
    early = attributor.provisional("r0", 2 * S + S // 10)
    assert early is not None
    assert early.joules == pytest.approx(250.0 * 2.1 / 2, rel=0.01), "half of the power in its life"
    assert total(early.parts) == pytest.approx(early.joules, rel=1e-9)


def test_a_provisional_part_of_which_nothing_is_known_is_null_and_not_zero() -> None:
    attributor = Attributor("steps", [Device("gpu0")])
    attributor.feed_all(streams(2, 2, 5.0))
    parts = attributor.provisional("r0", 2 * S + S // 10).parts  # type: ignore[union-attr]
    assert parts is not None
    assert (parts.static, parts.decode, parts.context, parts.prefill) == (None, None, None, None)


def test_a_silent_device_does_not_hold_records_for_ever() -> None:
    attributor, shares = run(
        *steady(100, 2),
        *steady(100, 60, "gpu1", hz=1),
        Arrive(S, "a", devices=GPU),
        End(3 * S, "a"),
        devices=("gpu0", "gpu1"),
    )
    assert shares["a"].unknown == "no_samples"
    assert shares["a"].joules == pytest.approx(100.0)
    law(attributor, shares)


def test_events_out_of_order_are_refused() -> None:
    attributor = Attributor()
    attributor.feed(Sample(S, "gpu0", energy_mj=0.0))
    with pytest.raises(ValueError, match="before"):
        attributor.feed(Sample(S - 1, "gpu0", energy_mj=0.0))


def test_an_unknown_policy_is_refused() -> None:
    with pytest.raises(ValueError, match="overlap"):
        Attributor("magic")


def test_what_is_not_known_is_passed_over() -> None:
    attributor, shares = run(
        Header(1, (Device("gpu0"),)),
        *steady(100, 2),
        Output(S, "ghost", 1),
        End(S, "ghost"),
        Span(S, "ghost"),
        Arrive(S, "a", devices=GPU),
        End(S, "a"),
        End(S, "a"),
        Output(S, "a", 1),
    )
    assert shares["a"].joules == 0.0, "a life of no length, measured: zero is known here"
    law(attributor, shares)


def test_the_account_of_a_span_takes_windows_in_proportion() -> None:
    attributor, _ = run(*steady(200, 4), Arrive(S, "a", devices=GPU), End(2 * S, "a"))
    (account,) = attributor.window(S // 2, 3 * S // 2)
    assert account.measured_joules == pytest.approx(200.0)
    assert account.requests_joules == pytest.approx(100.0)
    assert account.idle_joules == pytest.approx(100.0)


def test_measured_but_not_closed_yet_is_said() -> None:
    attributor = Attributor("overlap", [Device("gpu0")])
    for event in steady(100, 0.1):
        attributor.feed(event)
    (account,) = attributor.window(0, S // 10)
    assert account.open_joules == pytest.approx(10.0)
    assert account.measured_joules == 0.0


def test_engine_steps_and_spans_are_evidence_where_they_come() -> None:
    attributor = Attributor("steps", [Device("gpu0")])
    events = steady(300, 30)
    for number in range(10):
        name, t_ns = f"r{number}", (2 * number + 1) * S
        events.append(Arrive(t_ns, name, "chat", "m", False, GPU))
        events += [
            Step(
                t_ns + (k + 1) * S // 10,
                "m",
                GPU,
                t_ns + k * S // 10,
                {} if k else {name: 50},
                (name,) * bool(k),
            )
            for k in range(5)
        ]
        events.append(Step(t_ns + S, "another", GPU, t_ns))
        events.append(Span(t_ns + S, name, first_token_ns=t_ns + S // 10))
        events.append(End(t_ns + S // 2, name, 200, False, 50, 0, 5))
    for event in sorted(events, key=lambda e: e.t_ns or 0):
        attributor.feed(event)
    attributor.flush()
    shares = {s.request: s for s in attributor.drain()}
    assert {s.evidence for s in shares.values()} == {"steps"}
    assert all(s.joules == pytest.approx(150.0, rel=0.2) for s in shares.values())
    law(attributor, shares)
    assert attributor.terms()[0].group == "gpu0,m"


def test_a_sensor_that_falls_silent_holds_nobody_up() -> None:
    attributor = Attributor("steps", [Device("gpu0")])
    for event in steady(300, 5):
        attributor.feed(event)
    attributor.feed(Arrive(6 * S, "a", "chat", "m", True, GPU))
    attributor.feed(Arrive(7 * S, "b", "chat", "m", True, GPU))
    attributor.feed(End(8 * S, "a", 200, False, 10, 0, 5))
    assert attributor.drain() == []
    attributor.feed(End(60 * S, "b", 200, False, 10, 0, 5))
    assert {s.request: s.unknown for s in attributor.drain()} == {"a": "no_samples", "b": "no_samples"}


def test_outputs_of_those_nobody_measures_do_not_become_anothers() -> None:
    attributor = Attributor("steps", [Device("gpu0")])
    events: list[Event] = steady(300, 4)
    events += [
        Arrive(S, "other", "chat", "m", True, ("gpu9",)),
        Output(S + 5, "other", 1),
        End(S + 6, "other"),
    ]
    events += [Arrive(S + 7, "mine", "chat", "m", True, GPU), Output(2 * S, "mine", 1)]
    events += [End(2 * S + 1, "mine", 200, False, 10, 0, 1)]
    for event in sorted(events, key=lambda e: e.t_ns or 0):
        attributor.feed(event)
    attributor.flush()
    shares = {s.request: s for s in attributor.drain()}
    assert shares["other"].unknown == "no_samples"
    assert shares["mine"].joules == pytest.approx(300.0, rel=0.01)
    law(attributor, {"mine": shares["mine"]})


def test_a_late_header_declares_and_an_early_event_is_refused() -> None:
    attributor = Attributor()
    attributor.feed(Sample(5, "gpu0", energy_mj=1.0))
    attributor.feed(Header(1, (Device("gpu1"),)))
    assert [account.device for account in attributor.accounts()] == ["gpu0", "gpu1"]
    with pytest.raises(ValueError, match="t_ns 4 is before 5"):
        attributor.feed(Sample(4, "gpu0", energy_mj=2.0))


def test_a_young_model_holds_up_only_the_first_of_lone_requests() -> None:
    attributor = Attributor("steps", [Device("gpu0")])
    done: list[tuple[int, str]] = []
    events = steady(300, 20)
    for number in range(3):
        name, t_ns = f"r{number}", (4 * number + 6) * S
        events += [Arrive(t_ns, name, "chat", "m", True, GPU)]
        events += [Output(t_ns + k * S // 10, name, 1) for k in range(1, 6)]
        events += [End(t_ns + S // 2 + 1, name, 200, False, 10, 0, 5)]
    for event in sorted(events, key=lambda e: e.t_ns or 0):
        attributor.feed(event)
        done += [(event.t_ns or 0, share.request) for share in attributor.drain()]
    assert [name for _, name in done] == ["r0", "r1", "r2"]
    for number, (t_ns, _) in enumerate(done):
        assert t_ns - (4 * number + 6) * S <= S, "final within two samples of its end"


def test_work_outside_is_told_to_the_devices_that_are_known() -> None:
    attributor = Attributor("overlap", [Device("gpu0")])
    for event in (*steady(100, 2), Outside(2 * S, 0, ("gpu9", "gpu0"), 0.5, "metrics")):
        attributor.feed(event)
    for event in steady(100, 4)[21:]:
        attributor.feed(event)
    attributor.flush()
    assert attributor.last_samples() == {"gpu0": 4 * S}
    law(attributor, {})


def test_an_id_used_again_while_its_request_runs_is_passed_over() -> None:
    again = Arrive(2 * S, "a", devices=GPU)
    attributor, shares = run(*steady(100, 4), Arrive(S, "a", devices=GPU), again, End(3 * S, "a"))
    assert shares["a"].joules == pytest.approx(200.0)
    law(attributor, shares)


@pytest.mark.parametrize("policy", ["overlap", "tokens", "steps"])
def test_a_device_read_later_than_another_costs_that_one_no_joules(policy: str) -> None:
    attributor = Attributor(policy, [Device("gpu0"), Device("gpu1")])
    events: list[Event] = [
        Sample(0, "gpu1", energy_mj=0.0),
        Arrive(1, "a", devices=GPU),
        Sample(40 * S, "gpu1", energy_mj=0.0),
        Sample(40 * S + 9 * S // 10, "gpu0", energy_mj=5.0),
        Sample(41 * S, "gpu1", energy_mj=350.0),
        Sample(42 * S, "gpu1", energy_mj=700.0),
        Sample(42 * S, "gpu0", energy_mj=6.0),
    ]
    for event in events:
        attributor.feed(event)
    attributor.flush()
    measured = {account.device: account.measured_joules for account in attributor.accounts()}
    assert measured == pytest.approx({"gpu0": 0.001, "gpu1": 0.7}, rel=1e-9)


@pytest.mark.parametrize("policy", ["overlap", "tokens", "steps"])
def test_after_a_devices_last_reading_its_energy_is_unknown_and_not_zero(policy: str) -> None:
    attributor = Attributor(policy, [Device("gpu0"), Device("gpu1")])
    events: list[Event] = [*steady(300, 10), *steady(200, 6, "gpu1")]
    events += [Arrive(2 * S, "a", "chat", "m", True, ("gpu0", "gpu1")), End(9 * S, "a", 200, False, 10, 0, 5)]
    for event in sorted(events, key=lambda e: e.t_ns or 0):
        attributor.feed(event)
    attributor.flush()
    (share,) = attributor.drain()
    assert share.unknown == "after_last_sample"
    assert share.joules_high is None
    assert [account.end_ns for account in attributor.accounts()] == [10 * S, 6 * S]


def test_windows_wait_for_usage_as_long_as_the_recorder_did() -> None:
    final = {}
    for settle_s in (1.0, None):
        attributor = Attributor("steps")
        attributor.feed(Header(1, (Device("gpu0"),), settle_s=settle_s))
        events = [*steady(300, 40), Arrive(S, "endless", devices=GPU), Arrive(2 * S, "short", devices=GPU)]
        for event in sorted([*events, End(4 * S, "short", 200)], key=lambda e: e.t_ns or 0):
            attributor.feed(event)
        final[settle_s] = [share.request for share in attributor.drain()]
    assert final == {1.0: ["short"], None: []}


def test_a_young_model_holds_up_so_many_requests_and_no_more() -> None:
    attributor, per_second = Attributor("steps", [Device("gpu0")]), 4_000
    lives = [(S + i * S // per_second, f"r{i}") for i in range(3 * per_second)]
    began = [Arrive(t_ns, name, "embeddings", devices=GPU) for t_ns, name in lives]
    ended = [End(t_ns + S // 500, name, 200, prompt_tokens=100) for t_ns, name in lives]
    events = sorted([*steady(300, 4), *began, *ended], key=lambda e: e.t_ns or 0)
    early = 3 * S // 2  # 2,000 requests after the first
    attributor.feed_all(event for event in events if (event.t_ns or 0) < early)
    assert attributor.drain() == []
    attributor.feed_all(event for event in events if early <= (event.t_ns or 0) < 4 * S)
    assert len(attributor.drain()) > 8_000


@pytest.mark.parametrize("policy", ["tokens", "steps", "overlap"])
def test_an_output_at_the_moment_of_arrival_ends_no_step_before_it(policy: str) -> None:
    attributor = Attributor(policy, [Device("gpu0")])
    for event in (
        Sample(0, "gpu0", 0.0), Arrive(0, "early", devices=GPU), Sample(S, "gpu0", 1e3),
        Arrive(S, "late", devices=GPU), Output(S, "late", 1), Sample(2 * S, "gpu0", 0.0),
    ):  # fmt: skip
        attributor.feed(event)
    attributor.flush()
    shares = {share.request: share for share in attributor.drain()}
    assert "gpu0" not in shares["late"].devices
    law(attributor, shares)


@pytest.mark.parametrize("policy", ["tokens", "steps", "overlap"])
def test_nothing_is_lost_beside_a_window_of_enormous_power(policy: str) -> None:
    attributor = Attributor(policy, [Device("gpu0"), Device("gpu1")])
    devices = ("gpu0", "gpu1")
    for event in (
        Sample(0, "gpu0", 0.0), Arrive(0, "a", devices=devices, backend="a"), Sample(1, "gpu0", 70_000.0),
        Step(1001, "a", devices, 1000, {"a": 0}, ("a",)), Sample(1001, "gpu0", 70_001.0),
    ):  # fmt: skip
        attributor.feed(event)
    attributor.flush()
    law(attributor, {share.request: share for share in attributor.drain()})


def test_a_silence_teaches_the_fit_nothing() -> None:
    attributor = Attributor("steps", [Device("gpu0")])
    events: list[Event] = [e for e in steady(300, 200, hz=2) if not 60 * S < (e.t_ns or 0) < 100 * S]
    for second in range(1, 199):
        name, start = f"r{second}", second * S + S // 3
        events += [
            Arrive(start, name, devices=GPU),
            *(Output(start + i * S // 20, name, 1) for i in (2, 4, 6)),
            End(start + S // 2, name, 200, completion_tokens=3, prompt_tokens=5),
        ]
    for event in sorted(events, key=lambda e: e.t_ns or 0):
        attributor.feed(event)
    (terms,) = attributor.terms()
    assert terms.idle_w == pytest.approx(300.0, rel=0.01)
    assert terms.r2 == pytest.approx(1.0, abs=1e-3)


def test_a_counter_refreshed_once_a_minute_is_no_silent_one() -> None:
    events: list[Event] = [Sample(i * 60 * S, "gpu0", energy_mj=i * 60 * 300e3) for i in range(20)]
    for second in range(1, 1100, 4):
        events += [Arrive(second * S, f"r{second}", devices=GPU), End((second + 3) * S, f"r{second}", 200)]
    attributor, shares = run(*events)
    (account,) = attributor.accounts()
    assert account.measured_joules == pytest.approx(300.0 * 60 * 18)  # of the first its period was not known
    assert sum(s.joules is None for s in shares.values()) < 32
    law(attributor, shares)


def test_the_time_without_a_meter_is_a_gap_of_every_device() -> None:
    header = Header(1, (Device("gpu0"), Device("gpu1")), resumed_ns=5 * S)
    for first in (Attributor("overlap", header.devices, resumed_ns=5 * S), Attributor("overlap")):
        first.feed(header)
        for second in (8, 9, 10):
            first.feed(Sample(second * S, "gpu0", energy_mj=second * 1e5))
            first.feed(Sample(second * S, "gpu1", energy_mj=second * 1e5))
        for account in first.accounts():
            assert [(g.start_ns, g.end_ns, g.reason) for g in account.gaps] == [
                (5 * S, 8 * S, "meter_restarted")
            ]


def test_a_provisional_share_of_a_counter_that_never_moved_is_not_known() -> None:
    attributor = Attributor("overlap", [Device("gpu0")])
    for event in (
        Sample(0, "gpu0", energy_mj=5.0),
        Arrive(S, "a", devices=GPU),
        Sample(2 * S, "gpu0", energy_mj=5.0),
    ):
        attributor.feed(event)
    share = attributor.provisional("a", 3 * S)
    assert share is not None
    assert (share.joules, share.joules_high, share.unknown) == (None, None, "not_measured_yet")


@pytest.mark.parametrize("counter", [None, 0.0])
def test_a_sensor_that_shows_nothing_but_0_measures_nothing(counter: float | None) -> None:
    zeros = [Sample(i * S // 10, "gpu0", energy_mj=counter, power_mw=0.0) for i in range(150)]
    attributor = Attributor("steps", [Device("gpu0")])
    attributor.feed_all(zeros[:11])
    attributor.feed(Arrive(S, "a", devices=GPU))
    attributor.feed_all(zeros[11:121])
    attributor.feed(End(12 * S, "a", 200, False, 5, 0, 5))
    attributor.feed_all(zeros[121:])
    attributor.flush()
    (share,) = attributor.drain()
    assert share.unknown is not None
    assert share.joules_high is None
