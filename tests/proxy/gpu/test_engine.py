import pytest

from proxy.gpu.composition import Work
from proxy.gpu.engine import Engine, Request, Step
from tests.proxy.gpu.modelled import Counting, ModelledDevice


def run(engine: Engine) -> list[Step]:
    steps = []
    while (step := engine.step()) is not None:
        steps.append(step)
    return steps


def test_a_prompt_is_computed_in_chunks_and_each_decoding_step_gives_a_token() -> None:
    engine = Engine(ModelledDevice(), Counting(), budget=48)
    request = Request("a", [1] * 100, 3)
    engine.add(request)
    assert [step.works for step in run(engine)] == [
        (Work(48, 0),),
        (Work(48, 48),),
        (Work(4, 96),),
        (Work(1, 100),),
        (Work(1, 101),),
    ]
    assert request.emitted == [7, 7, 7]
    assert engine.load == 0


def test_a_prompt_joins_a_step_of_decoding_within_the_budget() -> None:
    engine = Engine(ModelledDevice(), Counting(), budget=32)
    engine.add(Request("a", [1] * 8, 5))
    engine.step()
    engine.add(Request("b", [1] * 40, 2))
    step = engine.step()
    assert step is not None
    assert (step.members, step.works) == (("a", "b"), (Work(1, 8), Work(31, 0)))


def test_requests_wait_for_a_slot_and_get_the_one_that_becomes_free() -> None:
    runner = Counting(slots=1)
    engine = Engine(ModelledDevice(), runner)
    engine.add(Request("a", [1] * 4, 1))
    engine.add(Request("b", [1] * 4, 1))
    assert [step.members for step in run(engine)] == [("a",), ("b",)]
    assert [entries[0].slot for entries in runner.given] == [0, 0]


def test_a_cancelled_request_leaves_at_the_next_step() -> None:
    engine = Engine(ModelledDevice(), Counting())
    request = Request("a", [1] * 4, 100)
    engine.add(request)
    engine.step()
    request.cancelled = True
    assert engine.step() is None
    assert engine.load == 0


def test_a_request_beyond_the_context_length_is_rejected() -> None:
    with pytest.raises(ValueError, match="exceed the context length of 1024"):
        Engine(ModelledDevice(), Counting()).add(Request("a", [1] * 1000, 100))
