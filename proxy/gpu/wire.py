"""Sets of requests sent through the proxy: its recorded timeline, and the steps that the engine ran for them.

The server writes its steps to a file, under its own names of the requests; a response carries both names, the
server's in its body and the proxy's in the header ``x-request-id``. So the measured truth of a request can be
compared with the joules that the proxy attributes to it, from the sockets to the counter.
"""

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import aiohttp

from proxy.core.timeline import TimelineReader
from proxy.gpu.composition import Work
from proxy.gpu.engine import Step
from proxy.gpu.served import PAUSE_SECONDS, START_SECONDS, RequestSet, Served
from proxy.timeline_file import read_blocks

_TOKEN: Final = "abcd"  # the server counts four bytes as a token


def send(url: str, requests: RequestSet) -> dict[str, str]:
    """Send all rounds of a set; return the proxy's name of each request by the server's."""
    return asyncio.run(_rounds(url, requests))


async def _rounds(url: str, requests: RequestSet) -> dict[str, str]:
    names: dict[str, str] = {}
    async with aiohttp.ClientSession() as session:
        await asyncio.sleep(START_SECONDS)
        for _ in range(requests.rounds):
            sent = [one(session, url, prompt, output) for prompt, output in requests.requests]
            names.update(await asyncio.gather(*sent))
            await asyncio.sleep(PAUSE_SECONDS)
        await asyncio.sleep(START_SECONDS)
    return names


async def one(session: aiohttp.ClientSession, url: str, prompt: int, output: int) -> tuple[str, str]:
    """Send one request; return the server's name of it and the proxy's."""
    body = {"prompt": _TOKEN * prompt, "max_tokens": output, "stream": True}
    async with session.post(f"{url}/v1/completions", json=body) as response:
        text = await response.text()
        if response.status != 200:
            raise RuntimeError(f"the server returned {response.status}: {text[:200]}")
        first = json.loads(text.partition("\n")[0].removeprefix("data: "))
        return str(first["id"]), response.headers["x-request-id"]


def served(timeline: Path, steps: Sequence[dict[str, Any]], names: dict[str, str]) -> Served:
    """Return the events of the proxy's timeline and the steps of the requests in ``names``."""
    reader = TimelineReader()
    events = [event for block in read_blocks(timeline, reader) for event in block]
    found = [_step(line, names) for line in steps if names.keys() & set(line["members"])]
    return Served(events, found)


def _step(line: dict[str, Any], names: dict[str, str]) -> Step:
    members = tuple(names.get(name, name) for name in line["members"])
    works = tuple(Work(*work) for work in line["works"])
    return Step(line["start_ns"], line["end_ns"], members, works, ())


def read_steps(path: Path) -> list[dict[str, Any]]:
    """Return the lines that the server wrote; the last may be torn, and is left out."""
    lines = path.read_text().split("\n")[:-1]
    return [json.loads(line) for line in lines]
