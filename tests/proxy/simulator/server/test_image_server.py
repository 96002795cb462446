import asyncio
import base64
import re
from collections.abc import AsyncIterator
from dataclasses import replace

import httpx
import openai
import pytest
from prometheus_client.parser import text_string_to_metric_families

from proxy.simulator.engine.diffusion import StepCosts, load
from proxy.simulator.server.image_server import ImageServer
from proxy.simulator.server.web_app import Fault
from tests.proxy.simulator.captures import capture

FAST = StepCosts(1e-3, 1e-4, 0.0)
IMAGES = replace(load("h100-stable-diffusion-3.5-large"), seconds=FAST)
FILMS = replace(load("h100-wan2.1-t2v-1.3b"), seconds=FAST)


@pytest.fixture
async def images() -> AsyncIterator[ImageServer]:
    made = ImageServer(IMAGES, lambda _t, _w: None)
    await made.start()
    yield made
    await made.close()


@pytest.fixture
async def films() -> AsyncIterator[ImageServer]:
    made = ImageServer(FILMS, lambda _t, _w: None)
    await made.start()
    yield made
    await made.close()


async def call(server: ImageServer, path: str, body: object = None, method: str = "POST") -> httpx.Response:
    async with httpx.AsyncClient() as client:
        return await client.request(method, f"http://127.0.0.1:{server.port}{path}", json=body)


async def test_openai_python_gets_images_and_their_truth(images: ImageServer) -> None:
    async with openai.AsyncOpenAI(base_url=f"http://127.0.0.1:{images.port}/v1", api_key="none") as client:
        answer = await client.images.generate(
            model=IMAGES.model, prompt="a cat", n=2, size="256x256", extra_headers={"X-Request-Id": "i"}
        )
        edited = await client.images.edit(
            model=IMAGES.model, prompt="a dog", image=b"not looked at", size="512x512"
        )
    assert answer.data is not None
    assert edited.data is not None
    pictures = [base64.b64decode(each.b64_json or "") for each in (*answer.data, *edited.data)]
    assert [int.from_bytes(picture[16:20]) for picture in pictures] == [256, 256, 512]
    truth = (await call(images, "/truth/requests/i", method="GET")).json()
    assert 0 < truth["parts"]["static"] < truth["joules"]
    samples = {
        sample.name: sample.value
        for family in text_string_to_metric_families((await call(images, "/metrics", method="GET")).text)
        for sample in family.samples
    }
    assert samples["vllm_omni:image_count_total"] == 3
    assert samples["vllm_omni:e2e_request_latency_s_count"] == 2


async def test_answers_have_vllm_omnis_keys(images: ImageServer) -> None:
    theirs = capture("omni_raw/gen_ok.txt").body
    ours = (await call(images, "/v1/images/generations", {"prompt": "x", "size": "256x256"})).content
    keys = re.compile(rb'"(\w+)":')
    left = {b"queue_wait_ms"}
    assert keys.findall(ours) == [key for key in keys.findall(theirs.splitlines()[0]) if key not in left]


@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("err_n", {"prompt": "x", "n": 99}),
        ("err_noprompt", {"size": "256x256"}),
        ("err_size", {"prompt": "x", "size": "banana"}),
    ],
)
async def test_refusals_have_vllm_omnis_bytes(images: ImageServer, name: str, body: object) -> None:
    theirs = capture(f"omni_raw/{name}.txt")
    ours = await call(images, "/v1/images/generations", body)
    assert (ours.status_code, ours.content) == (theirs.status, theirs.body.splitlines()[0])


async def test_what_is_wrong_is_named(images: ImageServer) -> None:
    for body, said in [
        ({"prompt": "x", "model": "other"}, "Model mismatch"),
        ({"prompt": "x", "n": 0}, "greater than or equal to 1"),
        ({"prompt": "x", "size": "99999x8"}, "less than or equal to 4096"),
        ({"prompt": "x", "num_inference_steps": 0}, "num_inference_steps"),
        ({"prompt": "x", "n": "many"}, "body.n"),
        (["x"], "json_invalid"),
    ]:
        answer = await call(images, "/v1/images/generations", body)
        assert answer.status_code == 400
        assert said in answer.json()["error"]["message"]
    assert (await call(images, "/v1/videos", {"prompt": "x"})).json() == {"detail": "Not Found"}


async def test_a_video_is_a_job_with_content(films: ImageServer) -> None:
    made = (await call(films, "/v1/videos", {"prompt": "x", "seconds": "2", "num_inference_steps": 8})).json()
    assert (made["object"], made["status"]) == ("video", "queued")
    path = f"/v1/videos/{made['id']}"
    for _ in range(200):
        seen = (await call(films, path, method="GET")).json()
        if seen["status"] == "completed":
            break
        await asyncio.sleep(0.01)
    assert (seen["status"], seen["progress"], seen["seconds"]) == ("completed", 100, "2")
    content = await call(films, f"{path}/content", method="GET")
    assert content.headers["content-type"] == "video/mp4"
    assert content.content[4:8] == b"ftyp"
    assert [job["id"] for job in (await call(films, "/v1/videos", method="GET")).json()["data"]] == [
        made["id"]
    ]
    assert (await call(films, path, method="DELETE")).json()["deleted"]
    assert (await call(films, path, method="GET")).status_code == 404


async def test_a_video_that_is_not_made_yet_has_no_content() -> None:
    server = ImageServer(replace(FILMS, seconds=StepCosts(60.0, 0.0, 0.0)), lambda _t, _w: None)
    await server.start()
    made = (await call(server, "/v1/videos", {"prompt": "x", "num_inference_steps": 8})).json()
    early = await call(server, f"/v1/videos/{made['id']}/content", method="GET")
    assert early.status_code == 400
    await server.close()


async def test_a_form_is_read_like_json(films: ImageServer) -> None:
    async with httpx.AsyncClient() as client:
        form = {"prompt": "x", "size": "480x320", "num_frames": "5", "num_inference_steps": "1"}
        answer = await client.post(f"http://127.0.0.1:{films.port}/v1/videos", data=form)
    assert answer.json()["size"] == "480x320"


async def test_faults_reach_the_device() -> None:
    seen: list[Fault] = []
    server = ImageServer(IMAGES, lambda _t, _w: None, seen.append)
    await server.start()
    assert (await call(server, "/faults", {"kind": "slow", "call_seconds": 0.5})).status_code == 200
    assert seen == [Fault("slow", 0, 0.5)]
    bad = await call(server, "/faults", {"kind": "explode"})
    assert (bad.status_code, len(seen)) == (400, 1)
    await server.close()


async def test_a_full_queue_is_refused() -> None:
    server = ImageServer(replace(IMAGES, max_waiting=0), lambda _t, _w: None)
    await server.start()
    assert (await call(server, "/v1/images/generations", {"prompt": "x"})).status_code == 503
    await server.close()
