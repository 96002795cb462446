import asyncio
from pathlib import Path

import msgspec
import pytest

from loadgen.client.http_client import Client, Target
from loadgen.config.spec import Config, Spec
from loadgen.drive.preflight import Found, PreflightError, find_model, try_one
from loadgen.selfcheck.truth_server import Truth, TruthServer
from tests.loadgen.client.test_http_client import answering

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
async def test_a_preflight_error_contains_the_remedy(answer: bytes, says: str) -> None:
    async with answering(answer) as client:
        with pytest.raises(PreflightError, match=says):
            await find_model(client, CONFIG)


async def test_a_rejected_key_is_reported_as_rejected() -> None:
    refusal = b"HTTP/1.1 401 No\r\ncontent-length: 0\r\n\r\n"
    async with answering(refusal) as client:
        with pytest.raises(PreflightError, match="does not accept the key"):
            await find_model(client, CONFIG)
    async with answering(refusal) as client:
        with pytest.raises(PreflightError, match="give --api-key"):
            await find_model(client, msgspec.structs.replace(CONFIG, api_key=None))


async def test_the_wrong_scheme_is_reported() -> None:
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
            await try_one(client, CONFIG, Found("m"))


async def test_the_servers_first_model_is_the_default() -> None:
    async with TruthServer(Truth(0.001, 0.001, 2)) as server:
        client = Client(Target(server.url))
        found = await find_model(client, CONFIG)
        assert (found.name, found.is_listed) == ("truth", True)
        await try_one(client, CONFIG, found)
        await client.close()


def listing(body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)


async def test_a_model_that_is_not_listed_is_tried() -> None:
    asked = msgspec.structs.replace(CONFIG, spec=msgspec.structs.replace(CONFIG.spec, model="other"))
    async with answering(listing(b'{"data": [{"id": "only"}, {"id": "both"}]}')) as client:
        found = await find_model(client, asked)
    assert (found.name, found.is_listed, found.listed) == ("other", False, ["only", "both"])


async def test_a_rejected_test_request_lists_the_models() -> None:
    async with answering(b"HTTP/1.1 404 No\r\ncontent-length: 0\r\n\r\n") as client:
        with pytest.raises(PreflightError, match="no model 'other'\\? It lists only, both"):
            await try_one(client, CONFIG, Found("other", ["only", "both"]))


@pytest.mark.parametrize(
    "models",
    [
        b'[{"id": "m"}]',
        b'[null, 7, "text", {}, {"id": null}, {"id": {}}, {"name": "x"}, {"id": "m"}]',
        b'[{"id": "openai/*"}, {"id": "m", "created": NaN}]',
        b'[{"id": "m", "owned_by": "\\ud83d"}, {"id": "\xff"}]',
    ],
)
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
async def test_odd_entries_do_not_hide_the_other_models(models: bytes, mark: bytes) -> None:
    async with answering(listing(mark + b'{"object": "list", "data": %b}' % models)) as client:
        assert (await find_model(client, CONFIG)).name == "m"


@pytest.mark.parametrize(
    "body", [b'{"data": null}', b'{"data": []}', b"null", b"[]", b'{"data": [{"id": "a/*"}]}']
)
async def test_without_a_listed_model_a_name_must_be_given(body: bytes) -> None:
    async with answering(listing(body)) as client:
        with pytest.raises(PreflightError, match="--model NAME"):
            await find_model(client, CONFIG)
