import openai

from tests.fakes.model_server import MODEL, ModelServer


async def test_openai_python_understands_it() -> None:
    async with (
        ModelServer(tokens=3, gap_seconds=0) as server,
        openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="k") as client,
    ):
        stream = await client.chat.completions.create(
            model=MODEL, messages=[], stream=True, stream_options={"include_usage": True}
        )
        chunks = [chunk async for chunk in stream]
        whole = await client.chat.completions.create(model=MODEL, messages=[])
        models = await client.models.list()
    assert [len(chunk.choices) for chunk in chunks] == [1, 1, 1, 0]
    assert chunks[-1].usage == whole.usage
    assert [model.id for model in models.data] == [MODEL]
