import asyncio
from pathlib import Path

import msgspec
import pytest

from loadgen.client import Client, Target
from loadgen.config import Config, Spec
from loadgen.preflight import PreflightError, find_model, try_one
from loadgen.truthserver import Truth, TruthServer
from tests.loadgen.test_client import answering

REFUSAL = b'{"error": {"message": "no\\n such field"}}'
CONFIG = Config(
    spec=Spec(command="run", mode="rate", levels=(1.0,), url="http://host", admin_url="http://admin"),
    out=Path(),
    api_key="sk-1",
    headers=("x-a=b=c",),
)


def test_headers_carry_the_key() -> None:
    assert CONFIG.header_lines() == b"x-a: b=c\r\nAuthorization: Bearer sk-1\r\n"


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (b"HTTP/1.1 401 No\r\ncontent-length: 0\r\n\r\n", "HTTP 401: .*--api-key"),
        (b"HTTP/1.1 404 No\r\ncontent-length: 0\r\n\r\n", "--model NAME"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\n<html>", "--model NAME"),
        (b"", "start it"),
    ],
)
async def test_what_to_do_is_said(answer: bytes, says: str) -> None:
    async with answering(answer) as client:
        with pytest.raises(PreflightError, match=says):
            await find_model(client, CONFIG)


async def test_a_key_that_is_refused_is_not_asked_for_again() -> None:
    refusal = b"HTTP/1.1 401 No\r\ncontent-length: 0\r\n\r\n"
    async with answering(refusal) as client:
        with pytest.raises(PreflightError, match="does not accept the key"):
            await find_model(client, CONFIG)
    async with answering(refusal) as client:
        with pytest.raises(PreflightError, match="give --api-key"):
            await find_model(client, msgspec.structs.replace(CONFIG, api_key=None))


async def test_the_wrong_scheme_is_said() -> None:
    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.close()

    server = await asyncio.start_server(hang_up, "127.0.0.1", 0)
    place = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    for scheme, says in (("http", "one with TLS is https://"), ("https", "one without TLS is http://")):
        client = Client(Target(f"{scheme}://{place}"))
        with pytest.raises(PreflightError, match=says):
            await find_model(client, CONFIG)
        await client.close()
    server.close()


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (b"HTTP/1.1 404 No\r\ncontent-length: 0\r\n\r\n", "--endpoint"),
        (b"HTTP/1.1 500 No\r\ncontent-length: 0\r\n\r\n", "HTTP 500"),
        (
            b"HTTP/1.1 400 No\r\ncontent-length: %d\r\n\r\n%b" % (len(REFUSAL), REFUSAL),
            "HTTP 400 to a request of 4 tokens: no such field",
        ),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}", "finish reason"),
    ],
)
async def test_a_request_that_does_not_work_stops_the_run(answer: bytes, says: str) -> None:
    async with answering(answer) as client:
        with pytest.raises(PreflightError, match=says):
            await try_one(client, CONFIG, "m")


async def test_the_servers_first_model_is_the_default() -> None:
    async with TruthServer(Truth(0.001, 0.001, 2)) as server:
        client = Client(Target(server.url))
        assert await find_model(client, CONFIG) == "truth"
        await try_one(client, CONFIG, "truth")
        await client.close()


async def test_a_model_that_is_not_listed_is_refused_with_those_that_are() -> None:
    asked = msgspec.structs.replace(CONFIG, spec=msgspec.structs.replace(CONFIG.spec, model="other"))
    listed = b'{"data": [{"id": "only"}, {"id": "both"}]}'
    async with answering(
        b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(listed), listed)
    ) as client:
        with pytest.raises(PreflightError, match="no model 'other' at http://host: it has only, both"):
            await find_model(client, asked)
