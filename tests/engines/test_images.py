"""A diffusion pipeline behind the proxy: same bytes, joules per image."""

import base64
from pathlib import Path

import httpx
import openai
import pytest

from tests.engines import proxied
from tests.engines.device import Device

MODEL = "tiny-diffusion"
STEPS = 4
PNG = b"\x89PNG\r\n\x1a\n"


def test_through_the_proxy(image_engine: str, device: Device, tmp_path: Path) -> None:
    asked = {"model": MODEL, "prompt": "a lake", "size": "128x128", "n": 2, "seed": 1}
    asked["num_inference_steps"] = STEPS
    path = "/v1/images/generations"
    with proxied.serve(image_engine, tmp_path, device) as proxy, httpx.Client(timeout=60) as http:
        direct, through = (http.post(base + path, json=asked) for base in (image_engine, proxy.url))
        assert direct.status_code == 200
        assert through.content == direct.content
        record = proxy.final_record(through.headers["x-request-id"])
        refused = http.post(proxy.url + path, json={"prompt": ""})
    assert refused.status_code == 400
    assert refused.content == httpx.post(image_engine + path, json={"prompt": ""}).content
    assert (record.route, record.model) == ("images", MODEL)
    assert record.units is not None
    assert record.units.images == 2
    assert record.duration_s is not None
    assert record.joules == pytest.approx(device.watts * record.duration_s, rel=0.25)


def test_openai_python(image_engine: str) -> None:
    with openai.OpenAI(base_url=f"{image_engine}/v1", api_key="none", timeout=60) as client:
        answer = client.images.generate(model=MODEL, prompt="a lake", n=1)
    assert answer.data
    assert base64.b64decode(answer.data[0].b64_json or "").startswith(PNG)
