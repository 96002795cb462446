"""SGLang's own generation, in its documented shapes."""

from tests.proxy.api.native.test_dialect import event, read_complete, reading_of


def body(completion: int, *, reason: dict[str, object] | None = None, **more: object) -> dict[str, object]:
    info = {"id": "g1", "finish_reason": reason, "prompt_tokens": 9, "cached_tokens": 4, "e2e_latency": 0.5}
    return {"text": " a" * completion, "meta_info": {**info, "completion_tokens": completion}, **more}


def test_events_repeat_the_text_and_count_it() -> None:
    reading = reading_of("/generate")
    last = body(6, reason={"type": "length", "length": 6})
    tokens = [reading.read_event(event(one))[0] for one in (body(1), body(2), body(2), body(5), last)]
    assert tokens == [1, 1, 0, 3, 1]
    assert reading.read_event(b"data: [DONE]\n\n")[0] == 0
    assert (reading.prompt_tokens, reading.cached_tokens, reading.output_tokens) == (9, 4, 6)
    assert (reading.response_id, reading.finish_reasons) == ("g1", ["length"])


def test_several_answers_are_summed_in_arrays_and_in_events() -> None:
    reading = reading_of("/generate")
    read_complete(reading, [body(3), body(4)])
    assert (reading.prompt_tokens, reading.cached_tokens, reading.output_tokens) == (18, 8, 7)
    reading = reading_of("/generate")
    sent = (body(1, index=0), body(1, index=1), body(2, index=0), body(3, index=1))
    assert [reading.read_event(event(one))[0] for one in sent] == [1, 1, 1, 2]
    assert (reading.prompt_tokens, reading.output_tokens) == (18, 5)
