from proxy.core.events import Step
from tests.proxy.core.scene import MS, add, ended, group


def test_tracks_within_a_span_are_those_alive_in_it() -> None:
    here = group()
    early = add(here, "early", 0, (), ended("early", 50))
    late = add(here, "late", 80)
    assert here.within(0, 60 * MS) == [early]
    assert here.within(50 * MS, 81 * MS) == [early, late]
    assert here.within(51 * MS, 80 * MS) == []


def test_the_view_of_a_boundary_reaches_the_prompt_that_is_half_done() -> None:
    here = group()
    add(here, "done", 0, (400, 3_000))
    add(here, "half", 100, (4_000,))
    add(here, "next", 200, (5_000,))
    margin = 250 * MS
    assert here.view(2_000 * MS) == (400 * MS, 4_000 * MS)
    assert here.view(4_500 * MS) == (4_000 * MS, 5_000 * MS)
    assert here.view(9_000 * MS) == (9_000 * MS - margin, 9_000 * MS + margin)


def test_the_view_is_wider_than_three_steps() -> None:
    here = group()
    here.step_seconds = 0.2
    assert here.view(10_000 * MS) == (9_400 * MS, 10_600 * MS)


def test_a_prompt_with_none_before_it_began_when_it_arrived() -> None:
    here = group()
    add(here, "only", 100, (4_000,))
    assert here.view(2_000 * MS) == (100 * MS, 4_000 * MS)


def test_what_is_forgotten_is_counted() -> None:
    here = group()
    track = add(here, "r", 0, (10, 20, 30), tokens=2)
    here.steps = [Step(20 * MS, None, ("gpu0",), 0), Step(30 * MS, None, ("gpu0",), 20 * MS)]
    here.forget(20 * MS)
    assert here.outputs.t_ns.tolist() == [30 * MS]
    assert here.streams.forgotten[track.slot] == 4
    assert [step.t_ns for step in here.steps] == [30 * MS]
    assert here.kept_ns == 20 * MS
