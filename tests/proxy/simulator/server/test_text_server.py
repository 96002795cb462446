import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from itertools import pairwise

import httpx
import openai
import pytest
from prometheus_client.parser import text_string_to_metric_families

from proxy.clock import now_ns
from proxy.simulator.profiles.profile import DEFAULT, Costs, Speculation, load
from proxy.simulator.server.text_server import Server
from proxy.units import NS_PER_MS, seconds_from_ns
from tests.timing import PATIENCE_SECONDS

STEP = Costs(static=2e-3, decode=1e-6, context=0.0, prefill=1e-6)
FAST = replace(load(DEFAULT), seconds=STEP, cap_watts=None)
MODEL = FAST.model


class Drawn:
    """Power segments as the stand-in gets them."""

    def __init__(self) -> None:
        self.segments: list[tuple[int, float]] = []

    def __call__(self, t_ns: int, watts: float) -> None:
        self.segments.append((t_ns, watts))

    def joules(self, until_ns: int) -> float:
        whole = [*self.segments, (until_ns, 0.0)]
        return sum(w * seconds_from_ns(b - a) for (a, w), (b, _) in pairwise(whole))


@pytest.fixture
async def drawn() -> Drawn:
    return Drawn()


@pytest.fixture
async def server(drawn: Drawn) -> AsyncIterator[Server]:
    made = Server(FAST, drawn)
    await made.start()
    yield made
    await made.close()


@pytest.fixture
async def client(server: Server) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(
        base_url=f"http://127.0.0.1:{server.port}/v1", api_key="none", max_retries=0
    ) as made:
        yield made


async def test_openai_python_gets_a_whole_answer(client: openai.AsyncOpenAI) -> None:
    answer = await client.chat.completions.create(
        model=MODEL, messages=[{"role": "user", "content": "one two three"}], max_tokens=5
    )
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (3, 5)
    assert answer.choices[0].message.content is not None
    assert len(answer.choices[0].message.content.split()) == 5
    assert [m.id async for m in client.models.list()] == [MODEL]


async def test_openai_python_streams(client: openai.AsyncOpenAI) -> None:
    stream = await client.chat.completions.create(
        model=MODEL,
        messages=[{"role": "user", "content": "one"}],
        max_tokens=4,
        stream=True,
        stream_options={"include_usage": True},
        extra_headers={"X-Request-Id": "mine"},
    )
    chunks = [chunk async for chunk in stream]
    assert {chunk.id for chunk in chunks} == {"chatcmpl-mine"}
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 4
    assert chunks[-2].choices[0].finish_reason == "length"
    assert len(chunks) == 6


async def test_tokens_of_one_step_come_in_one_chunk(drawn: Drawn) -> None:
    server = Server(replace(FAST, speculation=Speculation(3, 1.0)), drawn)
    await server.start()
    async with openai.AsyncOpenAI(base_url=f"http://127.0.0.1:{server.port}/v1", api_key="none") as client:
        stream = await client.completions.create(
            model=MODEL, prompt="x", max_tokens=10, stream=True, stream_options={"include_usage": True}
        )
        chunks = [chunk async for chunk in stream]
    assert [len(chunk.choices[0].text.split()) for chunk in chunks[:-1]] == [1, 4, 4, 1]
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 10
    await server.close()


async def test_completions_take_token_ids(client: openai.AsyncOpenAI) -> None:
    answer = await client.completions.create(model=MODEL, prompt=[1, 2, 3, 4], max_tokens=2)
    assert answer.usage is not None
    assert answer.usage.prompt_tokens == 4


async def test_errors_have_the_shape_of_vllm(client: openai.AsyncOpenAI, server: Server) -> None:
    with pytest.raises(openai.NotFoundError, match="does not exist"):
        await client.completions.create(model="other", prompt="x")
    for wrong in (-1, 0):
        with pytest.raises(openai.BadRequestError, match="max_tokens"):
            await client.completions.create(model=MODEL, prompt="x", max_tokens=wrong)
    async with httpx.AsyncClient() as plain:
        answer = await plain.post(f"http://127.0.0.1:{server.port}/v1/completions", content=b"{")
        assert answer.status_code == 400
        assert answer.json()["error"]["code"] == 400
        assert (await plain.get(f"http://127.0.0.1:{server.port}/health")).status_code == 200


async def test_truth_adds_up_to_the_energy_drawn(
    client: openai.AsyncOpenAI, server: Server, drawn: Drawn
) -> None:
    async def ask(name: str) -> float:
        await client.completions.create(
            model=MODEL, prompt="a b c", max_tokens=10, extra_headers={"X-Request-Id": name}
        )
        async with httpx.AsyncClient() as plain:
            truth = await plain.get(f"http://127.0.0.1:{server.port}/truth/requests/{name}")
            assert truth.json()["parts"]["static"] > 0
            joules: float = truth.json()["joules"]
            return joules

    joules = await asyncio.gather(*(ask(str(n)) for n in range(3)))
    assert sum(joules) == pytest.approx(server.runner.busy_joules, rel=1e-9)
    now = now_ns() + NS_PER_MS
    total = server.runner.busy_joules + server.runner.idle_joules(now)
    assert total == pytest.approx(drawn.joules(now), rel=1e-9)


async def test_a_client_that_leaves_frees_its_place(server: Server) -> None:
    body = {"model": MODEL, "prompt": "x", "max_tokens": 100_000, "stream": True}
    async with (
        httpx.AsyncClient() as plain,
        plain.stream("POST", f"http://127.0.0.1:{server.port}/v1/completions", json=body) as answer,
    ):
        await anext(answer.aiter_raw())
        assert server.engine.running == 1
    async with asyncio.timeout(PATIENCE_SECONDS):
        while server.engine.running:  # noqa: ASYNC110 - it computes for nobody until it sees the end
            await asyncio.sleep(0.01)


async def test_a_slow_reader_sees_one_end(client: openai.AsyncOpenAI) -> None:
    stream = await client.completions.create(model=MODEL, prompt="x", max_tokens=40, stream=True)
    reasons = []
    async for chunk in stream:
        await asyncio.sleep(0.005)
        reasons += [choice.finish_reason for choice in chunk.choices]
    assert reasons == [None] * 39 + ["length"]


async def post(server: Server, path: str, body: object) -> httpx.Response:
    async with httpx.AsyncClient() as plain:
        return await plain.post(f"http://127.0.0.1:{server.port}{path}", json=body)


async def test_what_is_not_served_is_said_as_fastapi_says_it(server: Server) -> None:
    missing = await post(server, "/v1/embeddings", {"model": MODEL, "input": "x"})
    assert (missing.status_code, missing.content) == (404, b'{"detail":"Not Found"}')
    async with httpx.AsyncClient() as plain:
        got = await plain.get(f"http://127.0.0.1:{server.port}/v1/chat/completions")
    assert (got.status_code, got.content) == (405, b'{"detail":"Method Not Allowed"}')
    assert got.headers["allow"] == "POST"


async def test_several_prompts_and_choices_are_answered_together(client: openai.AsyncOpenAI) -> None:
    answer = await client.completions.create(model=MODEL, prompt=["a b", "c"], max_tokens=3, n=2)
    assert [choice.index for choice in answer.choices] == [0, 1, 2, 3]
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (3, 12)
    stream = await client.completions.create(model=MODEL, prompt="x", max_tokens=3, n=2, stream=True)
    chunks = [chunk async for chunk in stream]
    ends = [c.index for chunk in chunks for c in chunk.choices if str(c.finish_reason) == "length"]
    assert sorted(ends) == [0, 1]


async def test_the_same_beginning_is_cached_and_counted(client: openai.AsyncOpenAI, server: Server) -> None:
    text = " ".join(map(str, range(40)))
    cached = []
    for _ in range(2):
        answer = await client.completions.create(model=MODEL, prompt=text, max_tokens=2)
        assert answer.usage is not None
        assert answer.usage.prompt_tokens_details is not None
        cached.append(answer.usage.prompt_tokens_details.cached_tokens)
    assert cached == [0, 32]
    async with httpx.AsyncClient() as plain:
        scrape = (await plain.get(f"http://127.0.0.1:{server.port}/metrics")).text
    values = {
        sample.name: sample.value
        for family in text_string_to_metric_families(scrape)
        for sample in family.samples
    }
    assert values["vllm:prefix_cache_queries_total"] == 80
    assert values["vllm:prefix_cache_hits_total"] == 32
    assert values["vllm:generation_tokens_total"] == 4
    assert values["vllm:prompt_tokens_total"] == 48
    assert values["vllm:time_to_first_token_seconds_count"] == 2
    assert values["vllm:num_requests_running"] == 0


async def test_the_next_turn_of_a_conversation_finds_the_answer_before_it(client: openai.AsyncOpenAI) -> None:
    question = " ".join(map(str, range(40)))
    cached, turns = [], [question]
    for _ in range(2):
        messages = [{"role": ("user", "assistant")[i % 2], "content": turn} for i, turn in enumerate(turns)]
        answer = await client.chat.completions.create(model=MODEL, messages=messages, max_tokens=50)  # type: ignore[arg-type]
        assert answer.usage is not None
        assert answer.usage.prompt_tokens_details is not None
        cached.append(answer.usage.prompt_tokens_details.cached_tokens)
        turns += [answer.choices[0].message.content or "", "go on"]
    assert cached == [0, 80]  # of 40 + 49 computed tokens, five full blocks


async def test_a_full_queue_is_refused(drawn: Drawn) -> None:
    limits = replace(FAST.limits, max_num_seqs=1, max_waiting=1)
    server = Server(replace(FAST, limits=limits), drawn)
    await server.start()
    body = {"model": MODEL, "prompt": "x", "max_tokens": 30}
    answers = await asyncio.gather(*(post(server, "/v1/completions", body) for _ in range(6)))
    refused = [answer for answer in answers if answer.status_code == 503]
    assert 1 <= len(refused) <= 5
    assert "currently busy" in refused[0].json()["error"]["message"]
    assert server.metrics.rejected == len(refused)
    await server.close()


async def test_an_answer_longer_than_the_cache_is_refused(server: Server) -> None:
    answer = await post(server, "/v1/completions", {"model": MODEL, "prompt": "x", "max_tokens": 10_000_000})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "max_tokens")


async def test_an_embedding_model_answers_with_vectors(drawn: Drawn) -> None:
    server = Server(replace(FAST, embedding_size=8), drawn)
    await server.start()
    async with openai.AsyncOpenAI(base_url=f"http://127.0.0.1:{server.port}/v1", api_key="none") as client:
        answer = await client.embeddings.create(model=MODEL, input=["a b", "c"])
        plain = await client.embeddings.create(model=MODEL, input="a b c", encoding_format="float")
    assert [len(each.embedding) for each in answer.data] == [8, 8]
    assert (answer.usage.prompt_tokens, plain.usage.prompt_tokens) == (3, 3)
    assert plain.data[0].embedding == answer.data[0].embedding
    assert server.engine.totals.prompt_tokens == 6
    wrong = await post(server, "/v1/embeddings", {"model": MODEL})
    assert (wrong.status_code, wrong.json()["error"]["param"]) == (400, "body.input")
    assert (await post(server, "/v1/completions", {"model": MODEL, "prompt": "x"})).status_code == 404
    await server.close()


async def test_a_failed_engine_answers_with_500_and_is_not_healthy(caplog: pytest.LogCaptureFixture) -> None:
    def draw(_t: int, watts: float) -> None:
        if watts != FAST.idle_watts:
            raise ValueError("gone")

    server = Server(FAST, draw)
    await server.start()
    answer = await post(server, "/v1/completions", {"model": MODEL, "prompt": "x"})
    assert answer.status_code == 500
    async with httpx.AsyncClient() as plain:
        assert (await plain.get(f"http://127.0.0.1:{server.port}/health")).status_code == 503
    assert "simulated engine failed" in caplog.text
    await server.close()
