"""openai-python through the proxy behaves as against the server itself."""

import importlib.util

import openai
import pytest

from tests.e2e.serving import serving
from tests.fakes.model_server import MODEL, ModelServer

pytestmark = pytest.mark.skipif(
    not all(importlib.util.find_spec(name) for name in ("proxy.relay.worker", "proxy.meter.process")),
    reason="proxy.relay.worker and proxy.meter.process are not both there",
)


async def behaviour(url: str) -> list[object]:
    """Return a client's view of every call, as plain data."""
    async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="k", max_retries=0) as client:
        stream = await client.chat.completions.create(model=MODEL, messages=[], stream=True)
        counted = await client.chat.completions.create(
            model=MODEL, messages=[], stream=True, stream_options={"include_usage": True}
        )
        seen: list[object] = [[chunk.model_dump() async for chunk in stream]]
        seen.append([chunk.model_dump() async for chunk in counted])
        seen.append((await client.chat.completions.create(model=MODEL, messages=[])).model_dump())
        seen.append((await client.completions.create(model=MODEL, prompt="p")).model_dump())
        seen.append([model.model_dump() async for model in client.models.list()])
        with pytest.raises(openai.NotFoundError) as refused:
            await client.embeddings.create(model=MODEL, input="p")
        return [*seen, refused.value.status_code, refused.value.response.text]


async def test_every_call_behaves_as_against_the_server_itself() -> None:
    async with ModelServer(tokens=5, gap_seconds=0) as server:
        with serving(server.url, "--source", "none") as proxy:
            assert await behaviour(proxy.url) == await behaviour(server.url)
