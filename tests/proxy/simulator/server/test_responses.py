import re
from typing import Any

import msgspec
import pytest

from proxy.simulator.engine.job import Job
from proxy.simulator.server import responses
from proxy.simulator.server.text_requests import BUSY, RefusedError, read
from tests.proxy.simulator.captures import Capture, capture


def job(prompt: int, emitted: int, chain: tuple[int, ...] = ()) -> Job:
    made = Job("a", prompt, emitted, chain)
    made.emitted = emitted
    return made


def skeleton(raw: bytes) -> list[str]:
    """Keys in their order, and the values that are neither ids, times nor text, as JSON writes them."""
    text = raw.decode()
    for key in ("id", "content", "text", "root", "owned_by", "system_fingerprint"):
        text = re.sub(rf'"{key}":"(?:[^"\\]|\\.)*"', f'"{key}":"*"', text)
    text = re.sub(r'"created":\d+', '"created":0', text)
    return re.split(r"(?<=[,{\[])", text)


def stream_of(found: Capture, **how: bool) -> tuple[list[bytes], list[bytes]]:
    events = found.events
    first: dict[str, Any] = msgspec.json.decode(events[0][6:])
    chat = first["object"].startswith("chat")
    usage = next(
        (u for e in events[:-1] if (u := msgspec.json.decode(e[6:]).get("usage"))), {"prompt_tokens": 13}
    )
    count = len(events) - (2 if chat else 1) - how["final"]
    head = responses.Head(first["id"].split("-", 1)[1], first["created"], first["model"], chat)
    stream = responses.Stream(head, [job(usage["prompt_tokens"], count)], "length", **how)
    made = (
        stream.first() + b"".join(stream.token(0, more=i < count - 1) for i in range(count)) + stream.last()
    )
    return [event + b"\n\n" for event in made.split(b"\n\n") if event], events


@pytest.mark.parametrize(
    ("name", "how"),
    [
        ("chat_stream_plain", {"continuous": False, "final": False}),
        ("chat_stream_usage", {"continuous": False, "final": True}),
        ("chat_stream_usage_continuous", {"continuous": True, "final": True}),
        ("completions_stream_usage", {"continuous": False, "final": True}),
    ],
)
def test_streams_have_vllms_bytes(name: str, how: dict[str, bool]) -> None:
    ours, theirs = stream_of(capture(f"vllm_raw/{name}.txt"), **how)
    details = re.compile(rb',"prompt_tokens_details":\{[^}]*\}')  # a flag of vLLM, off in these captures
    assert len(ours) == len(theirs)
    for mine, real in zip(ours, theirs, strict=True):
        assert skeleton(details.sub(b"", mine)) == skeleton(real)


def test_a_stream_with_details_has_vllms_bytes() -> None:
    ours, theirs = stream_of(
        capture("vllm_raw/flags_chat_stream_forced_usage.txt"), continuous=True, final=True
    )
    assert [skeleton(event) for event in ours] == [skeleton(event) for event in theirs]


def test_whole_answers_have_vllms_bytes() -> None:
    theirs = capture("vllm_raw/flags_prefix1.txt")
    answer: dict[str, Any] = msgspec.json.decode(theirs.body)
    head = responses.Head("x", answer["created"], answer["model"], chat=True)
    chain = tuple(range(answer["usage"]["prompt_tokens_details"]["created_cache_tokens"] // 16))
    ours = responses.complete_body(head, [job(answer["usage"]["prompt_tokens"], 4, chain)], "length")
    assert skeleton(ours) == skeleton(theirs.body)


def test_whole_completions_have_vllms_bytes() -> None:
    theirs = capture("vllm_raw/completions_nonstream.txt").body
    theirs = re.sub(rb'"logprobs":\{.*?\]\},"finish', b'"logprobs":null,"finish', theirs)
    jobs = [job(2, 4, (0,)), job(2, 4, (0,)), job(2, 4, (1,)), job(2, 4, (1,))]
    ours = responses.complete_body(responses.Head("x", 1, "tiny", chat=False, choices=2), jobs, "length")
    ours = re.sub(rb'"prompt_tokens_details":\{[^}]*\}', b'"prompt_tokens_details":null', ours)
    assert skeleton(ours) == skeleton(theirs)


def test_the_list_of_models_has_vllms_bytes() -> None:
    theirs = capture("vllm_raw/models.txt").body
    ours = responses.models("tiny", 1795415093, 2048)
    assert skeleton(ours) == skeleton(theirs)


@pytest.mark.parametrize(
    ("name", "raw", "kind"),
    [
        ("err_400_badjson", b'{"model":', "application/json"),
        ("err_400_missing", b'{"model":"tiny"}', "application/json"),
        ("err_400_maxtok", b'{"model":"tiny","messages":[],"max_tokens":99999}', "application/json"),
        ("err_400_temp", b'{"model":"tiny","messages":[],"temperature":-3}', "application/json"),
        ("err_404_model", b'{"model":"nope","messages":[]}', "application/json"),
        ("err_415", b"x", "text/plain"),
        (
            "err_streamopts",
            b'{"model":"tiny","messages":[],"stream_options":{"include_usage":true}}',
            "application/json",
        ),
        (
            "err_400_ctx_too_long",
            msgspec.json.encode({"model": "tiny", "messages": [{"content": "x " * 2049}]}),
            "application/json",
        ),
    ],
)
def test_refusals_have_vllms_bytes(name: str, raw: bytes, kind: str) -> None:
    theirs = capture(f"vllm_raw/{name}.txt")
    with pytest.raises(RefusedError) as caught:
        read(raw, kind, chat=True, model="tiny", longest=2048)
    assert (caught.value.status, caught.value.body()) == (theirs.status, theirs.body)


def test_a_full_queue_has_vllms_bytes() -> None:
    theirs = capture("vllm_raw/err_503_queue_full.txt")
    assert RefusedError(503, BUSY, "Service Unavailable").body() == theirs.body


def test_embeddings_have_vllms_keys() -> None:
    theirs = capture("vllm_raw/embeddings_ok.txt").body  # cut off within the vector
    ours = responses.embeddings(responses.Head("x", 1, "minilm", chat=False), [job(2, 1)], 3, base64=False)
    keys = re.compile(rb'"(\w+)":')
    assert keys.findall(ours)[:8] == keys.findall(theirs)[:8]


def test_text_has_a_word_a_token() -> None:
    assert responses.text(0) == ""
    assert len(responses.text(11).split()) == 11


def test_prompts_answered_several_times_count_once() -> None:
    jobs = [job(40, 3), job(40, 3), job(2, 3), job(2, 3)]
    whole = msgspec.json.decode(
        responses.complete_body(responses.Head("x", 1, "m", chat=False, choices=2), jobs, "stop")
    )
    assert (whole["usage"]["prompt_tokens"], whole["usage"]["completion_tokens"]) == (42, 12)
