import numpy as np
import pytest

from proxy.core.activity.tracks import Track
from proxy.core.events import Arrive, End, Span
from proxy.core.reconstruct.non_streamed import Clock, placed_by_guess, reveal, ticks, unseen
from proxy.schema import Units
from tests.proxy.core.scene import MS, add, ended, group

STEPS = np.linspace(0.01, 0.1, 10)


def clock(joined: bool = True) -> Clock:
    return Clock(STEPS, np.full(len(STEPS), joined))


def test_an_answer_was_in_the_last_steps_before_its_end() -> None:
    assert ticks(clock(), 0.0, 0.1, 3, 0.01) == pytest.approx([0.08, 0.09, 0.10])


def test_where_nobody_was_seen_steps_have_the_usual_pace() -> None:
    sparse = Clock(np.array([0.05, 0.10]), np.zeros(2, bool))
    assert ticks(sparse, 0.0, 0.1, 6, 0.01) == pytest.approx([0.05, 0.06, 0.07, 0.08, 0.09, 0.10])


def test_between_two_steps_of_a_stream_there_is_none() -> None:
    sparse = Clock(np.array([0.05, 0.10]), np.array([False, True]))
    assert ticks(sparse, 0.04, 0.1, 6, 0.01) == pytest.approx([0.05, 0.10])


def test_alone_it_emits_evenly() -> None:
    nothing = Clock(np.empty(0), np.empty(0, bool))
    assert ticks(nothing, 0.0, 0.1, 4, 0.01) == pytest.approx([0.025, 0.05, 0.075, 0.1])


def test_only_ended_answers_that_emit_tokens_are_revealed() -> None:
    here = group()
    add(here, "streamed", 0, (10, 20), ended("streamed", 21, out=2))
    add(here, "running", 0)
    add(here, "empty", 0, (), ended("empty", 50, out=0))
    add(here, "picture", 0, (), End(50 * MS, "picture", 200, completion_tokens=7, units=Units(images=1)))
    add(here, "unknown", 0, (), End(50 * MS, "unknown", 200))
    whole = add(here, "whole", 0, (), ended("whole", 90, out=5))
    add(here, "left", 0, (), ended("left", 40, prompt=None, out=None))
    assert unseen(here, list(here.tracks.values())) == [whole]


def test_an_answer_that_only_computed_its_prompt_is_in_the_step_that_ends_it() -> None:
    here = group()
    arrive = Arrive(0, "vectors", "embeddings", "m", False, ("gpu0",))
    track = Track(arrive, here.streams.open(0), ended("vectors", 35, out=0))
    here.tracks[track.slot] = track
    here.streams.end_ns[track.slot] = 35 * MS
    assert unseen(here, [track]) == [track]
    reveal(here, [track], clock(), 0.01)
    assert here.outputs.t_ns.tolist() == [30 * MS]
    assert track.evidence == "usage"


def test_revealed_outputs_stand_in_the_timeline() -> None:
    here = group()
    track = add(here, "whole", 0, (), ended("whole", 100, out=4))
    here.kept_ns = 75 * MS
    later = Clock(STEPS - 0.075, np.ones(len(STEPS), bool))
    reveal(here, [track], later, 0.01)
    assert here.outputs.t_ns.tolist() == [80 * MS, 90 * MS, 100 * MS]
    assert here.streams.first_ns[track.slot] == 70 * MS
    assert here.streams.forgotten[track.slot] == 1
    assert track.evidence == "usage"


def test_more_tokens_than_any_engine_makes_are_not_written_one_by_one() -> None:
    here = group()
    track = add(here, "whole", 0, (), ended("whole", 100, out=10**15))
    reveal(here, [track], Clock(np.empty(0), np.empty(0, bool)), 0.01)
    assert len(here.outputs.t_ns) == 1000


def test_a_span_tells_when_the_first_token_was() -> None:
    here = group()
    track = add(here, "whole", 0, (), ended("whole", 100, prompt=None, out=8))
    track.span = Span(100 * MS, "whole", first_token_ns=60 * MS)
    reveal(here, [track], clock(), 0.01)
    assert here.streams.first_ns[track.slot] >= 60 * MS


def test_steps_that_are_known_are_not_added_again() -> None:
    clock = Clock(np.array([1.0, 3.0]), np.array([False, True]))
    clock.add([0.5, 1.0, 2.0, 2.0, 3.0, 4.0])
    assert clock.stamps == [0.5, 1.0, 2.0, 3.0, 4.0]
    assert clock.loose == {1.0}
    assert clock.within(1.0, 3.0) == [2.0, 3.0]
    nothing = Clock(np.empty(0), np.empty(0, bool))
    nothing.add([])
    assert nothing.stamps == []
    nothing.add([2.0])
    assert nothing.stamps == [2.0]


def test_of_steps_of_one_stamp_the_first_tells_whether_others_lie_before() -> None:
    twice = Clock(np.array([1.0, 2.0, 2.0]), np.array([False, True, False]))
    assert twice.loose == {1.0}


def test_an_answer_whose_steps_no_stream_showed_is_placed_by_guess() -> None:
    here = group()
    tracks = [
        add(here, "beside a stream", 0, (), ended("beside a stream", 30, out=3)),
        add(here, "alone", 60, (), ended("alone", 90, out=3)),
        add(here, "embedding", 60, (), ended("embedding", 90, out=0)),
        add(here, "stream", 0, (10, 20, 30), ended("stream", 31, out=3)),
    ]
    for track in tracks[:3]:
        track.evidence = "usage"
    request = np.array([0, 3, 0, 3, 0, 3, 1, 1, 1, 2])
    burst = np.array([0, 0, 1, 1, 2, 2, 3, 4, 5, 5])
    everywhere = np.ones(len(request), bool)
    assert placed_by_guess(tracks, request, burst, everywhere).tolist() == [False, True, False, False]
    assert not placed_by_guess(tracks[3:], request[:0], burst[:0], everywhere[:0]).any()
