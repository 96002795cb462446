import msgspec
import numpy as np
import pytest

from proxy.core.activity.tracks import Track
from proxy.core.attribution import Attributor, Share
from proxy.core.events import Arrive, Device, End, Event, Output, Sample, Span, Step
from proxy.core.reconstruct.cells import EngineProfile, columns
from proxy.core.reconstruct.unread import counted_tokens, entries, unread
from proxy.schema import Units
from proxy.units import NS_PER_SECOND
from tests.proxy.core.scene import MS, add, ended, group

S = NS_PER_SECOND
GPU = ("gpu0",)
POLICIES = ("steps", "tokens", "overlap")


def scene(*others: Event, seconds: int = 4, streams: int = 1) -> list[Event]:
    """Answers streamed at 50 tokens a second at 250 W, from second 1 to ``seconds``, and ``others``."""
    events: list[Event] = [Sample(i * S // 10, "gpu0", energy_mj=i * 25e3) for i in range((seconds + 2) * 10)]
    for k in range(streams):
        events.append(Arrive(S, f"s{k}", devices=GPU, stream=True))
        events += [Output(S + i * S // 50, f"s{k}", 1) for i in range(1, (seconds - 1) * 50 + 1)]
        events.append(End(seconds * S, f"s{k}", 200, False, 50, 0, (seconds - 1) * 50))
    return sorted([*events, *others], key=lambda event: event.t_ns or 0)


def shares(events: list[Event], policy: str = "steps") -> dict[str, Share]:
    core = Attributor(policy, [Device("gpu0")])
    core.feed_all(events)
    core.flush()
    found = {share.request: share for share in core.drain()}
    (account,) = core.accounts()
    assert sum(s.joules or 0.0 for s in found.values()) == pytest.approx(account.requests_joules, rel=1e-9)
    return found


UNREAD = {
    "no usage": End(4 * S, "x", 200),
    "cancelled": End(4 * S, "x", None, True),
    "no status": End(4 * S, "x"),
    "prompt alone": End(4 * S, "x", 200, False, 50, 0, None),
    "no tokens": End(4 * S, "x", 200, False, 50, 0, 0),
    "failed late": End(4 * S, "x", 504),
    "pictures": End(4 * S, "x", 200, units=Units(images=1)),
}


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("end", UNREAD.values(), ids=UNREAD)
def test_a_request_of_which_no_token_was_read_gets_its_share_and_both_are_unsure(
    policy: str, end: End
) -> None:
    """One stream and one unread answer share all their life; each may have used nearly all or nothing."""
    found = shares(scene(Arrive(S, "x", devices=GPU), end), policy)
    hidden, seen = found["x"], found["s0"]
    assert hidden.evidence == "arrivals"
    assert hidden.unknown is None
    for share in (hidden, seen):
        assert share.joules is not None
        assert share.joules_low is not None
        assert share.joules_high is not None
        assert 0.2 * 750 < share.joules < 0.8 * 750
    if policy != "overlap":
        for share in (hidden, seen):
            assert (share.joules_low or 0.0) < 0.75 * 375.0
            assert (share.joules_high or 0.0) > 1.25 * 375.0
        assert hidden.parts is not None
        assert (hidden.parts.static, hidden.parts.decode) == (None, None)
        assert hidden.parts.unseparated == pytest.approx(hidden.joules, rel=1e-9)


@pytest.mark.parametrize("policy", POLICIES)
def test_an_unread_request_alone_is_known_as_well_as_any(policy: str) -> None:
    found = shares(scene(Arrive(S, "x", devices=GPU), End(3 * S, "x", 200), streams=0), policy)
    assert found["x"].joules == pytest.approx(500.0)
    assert found["x"].joules_low is not None
    assert found["x"].joules_low > 300.0


def test_a_refused_request_is_a_small_thing_that_may_be_nothing() -> None:
    found = shares(scene(Arrive(2 * S, "x", devices=GPU), End(2 * S + 2 * MS, "x", 400)))
    refused = found["x"]
    assert refused.joules is not None
    assert 0.0 < refused.joules < 0.5, "at most what was measured in its two milliseconds"
    assert refused.joules_low == 0.0
    assert found["s0"].joules == pytest.approx(750.0, rel=1e-3)


def test_a_long_job_that_is_not_streamed_is_charged_while_it_runs() -> None:
    """Windows are closed after ``settle_s``, before its usage is known; it was in the engine all the same."""
    core = Attributor("steps", [Device("gpu0")], settle_s=5.0)
    core.feed_all(scene(Arrive(S, "x", devices=GPU), seconds=40))
    early = core.provisional("x", 41 * S)
    assert early is not None
    assert early.joules is not None
    assert early.joules > 0.3 * 40 * 250
    core.flush()
    (open_,) = [share for share in core.drain() if share.request == "x"]
    assert (open_.unknown, open_.joules_high) == ("running", None)


def test_a_stream_that_waits_for_its_first_token_is_no_member_of_steps() -> None:
    found = shares(scene(Arrive(S, "x", devices=GPU, stream=True)))
    assert found["s0"].joules == pytest.approx(750.0), "all of it, while both were there"
    assert found["x"].unknown == "running"


def test_an_answer_the_engines_steps_do_not_name_is_not_nothing() -> None:
    steps = [Step(S + i * S // 50, None, GPU, S + (i - 1) * S // 50, {}, ("s0",)) for i in range(1, 151)]
    found = shares(scene(Arrive(S, "x", devices=GPU), End(4 * S, "x", 200, False, 9, 0, 99), *steps))
    assert found["x"].evidence == "arrivals"
    assert found["x"].joules == pytest.approx(375.0, rel=0.2)
    assert found["s0"].evidence == "steps"
    cancelled = shares(scene(Arrive(S, "x", devices=GPU), End(4 * S, "x", None, True), *steps))["x"]
    assert (cancelled.evidence, cancelled.joules) == ("steps", 0.0), (
        "it never left the queue: the engine says so"
    )


def test_the_tokens_of_an_answer_are_its_usage_where_that_can_be_meant() -> None:
    def of(route: str, prompt: int | None, out: int | None, units: Units | None = None) -> int | None:
        end = End(S, "x", 200, False, prompt, None, out, units)
        return counted_tokens(Track(Arrive(0, "x", route), end=end))

    assert of("chat", None, 7) == 7
    assert of("chat", 5, None) is None
    assert of("chat", 5, 0) is None
    assert of("embeddings", 5, 0) == of("rerank", 5, None) == 1
    assert of("embeddings", None, None) is None
    assert of("audio", 5, 0) is None
    assert of("images", 5, 9, Units(images=1)) is None
    assert counted_tokens(Track(Arrive(0, "x"))) is None


def test_unread_work_is_what_was_lived_of_each_step_and_the_prompt_is_spread_over_it() -> None:
    here = group()
    tracks = [
        add(here, "seen", 0, (10, 20), ended("seen", 21, out=2)),
        add(here, "hidden", 5, (), ended("hidden", 25, prompt=100, out=0)),
        add(here, "refused", 12, (), End(13 * MS, "refused", 400)),
        add(here, "late", 0, (), End(30 * MS, "late", 200)),
    ]
    tracks[3].span = Span(30 * MS, "late", first_token_ns=20 * MS)
    requests = columns(here, tracks, 0, 40 * MS, EngineProfile())
    which = unread(here, tracks)
    assert which.tolist() == [False, True, True, True]
    assert [t.evidence for t in tracks] == ["chunks", "arrivals", "arrivals", "arrivals"]
    stamps = np.array([0.01, 0.02, 0.03])
    found = entries(which, tracks, requests, stamps - 0.01, stamps)
    assert found.static is not None
    assert found.prefill is not None
    where = zip(found.request.tolist(), found.cell.tolist(), strict=True)
    lived = dict(zip(where, found.static.tolist(), strict=True))
    expected = {(1, 0): 0.5, (1, 1): 1.0, (1, 2): 0.5, (2, 1): 0.1, (3, 2): 1.0}
    assert lived == pytest.approx(expected)
    prompts = np.bincount(found.request, found.prefill, minlength=4).tolist()
    assert prompts == pytest.approx([0.0, 100.0, 0.0, EngineProfile().prompt_tokens]), (
        "none for the refused one"
    )


def test_chunks_without_tokens_are_no_reading() -> None:
    silent = [Output(S + i * S // 10, "x", 0) for i in range(1, 30)]
    found = shares(scene(Arrive(S, "x", devices=GPU, stream=True), End(4 * S, "x", 200), *silent))
    assert found["x"].evidence == "arrivals"
    assert found["x"].joules == pytest.approx(375.0, rel=0.3)
    assert msgspec.json.encode(found["x"])
