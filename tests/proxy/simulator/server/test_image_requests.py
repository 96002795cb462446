import json
from typing import Any
from urllib.parse import urlencode

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request

from proxy.simulator.engine.diffusion import Shape, load
from proxy.simulator.server.image_requests import MOST_IMAGES, ImageRequest, read
from proxy.simulator.server.text_requests import RefusedError

PROFILE = load("h100-pixart-sigma")
VIDEO = load("h100-cogvideox-2b")


def request(body: bytes, content_type: str = "application/json") -> web.Request:
    made = make_mocked_request("POST", "/v1/images/generations", headers={"Content-Type": content_type})
    made._read_bytes = body
    return made


async def parsed(**fields: Any) -> ImageRequest:
    return await read(request(json.dumps({"prompt": "a cat", **fields}).encode()), PROFILE)


async def test_missing_fields_have_the_defaults_of_the_profile() -> None:
    shape = Shape(PROFILE.width, PROFILE.height, 1, PROFILE.steps)
    assert await parsed() == ImageRequest(1, shape, PROFILE.fps or 16, 0)
    assert (await parsed(size="auto")).shape == shape


async def test_size_steps_number_and_seed_are_read() -> None:
    found = await parsed(n=2, size="512x768", num_inference_steps=4, seed=9, model=PROFILE.model)
    assert (found.samples, found.shape, found.seed) == (2, Shape(512, 768, 1, 4), 9)


async def test_a_form_is_read_like_json() -> None:
    body = urlencode({"prompt": "a cat", "n": "3"}).encode()
    made = request(body, "application/x-www-form-urlencoded")
    assert (await read(made, PROFILE)).samples == 3


async def test_the_frames_of_a_video_follow_from_its_seconds_or_their_number() -> None:
    async def frames(**fields: Any) -> int:
        return (await read(request(json.dumps({"prompt": "a", **fields}).encode()), VIDEO)).shape.frames

    assert await frames() == VIDEO.frames
    assert await frames(seconds=2, fps=8) == 16
    assert await frames(seconds=2, num_frames=5) == 5


@pytest.mark.parametrize(
    ("fields", "status", "text"),
    [
        ({"prompt": None}, 400, "'loc': 'body.prompt', 'msg': 'Field required'"),
        ({"n": 0}, 400, "Input should be greater than or equal to 1"),
        ({"n": MOST_IMAGES + 1}, 400, f"Input should be less than or equal to {MOST_IMAGES}"),
        ({"size": "large"}, 400, "size must be in format 'WIDTHxHEIGHT'"),
        ({"size": "9999x1"}, 400, "body.size"),
        ({"num_inference_steps": 0}, 400, "body.num_inference_steps"),
        ({"model": "other"}, 400, "Model mismatch: request specifies 'other'"),
        ({"n": "many"}, 400, "body.n"),
    ],
)
async def test_an_invalid_field_is_refused_by_its_name(
    fields: dict[str, Any], status: int, text: str
) -> None:
    with pytest.raises(RefusedError) as refused:
        await parsed(**fields)
    assert refused.value.status == status
    assert text in refused.value.message


async def test_a_body_that_is_not_json_is_refused() -> None:
    with pytest.raises(RefusedError, match="json_invalid"):
        await read(request(b"{"), PROFILE)
