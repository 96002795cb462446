"""The table: each case before jouleproxy and before others. ``python -m tests.contract [NAME ...]``.

Names are those of ``tests/benchmarks/peers/start.py`` (nginx, HAProxy, Envoy, ...); without one, all that are
installed. A proxy that runs already: ``--url URL --backend-port PORT``, set up to forward to 127.0.0.1:PORT.
"""

import argparse
import asyncio
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from tests.benchmarks.peers.start import PEERS, Peer, all_started
from tests.contract.backend import Backend
from tests.contract.cases import CASES
from tests.contract.stand import Case, Stand, judge, processes
from tests.e2e.serving import serving

OURS: Final = "jouleproxy"


def say(line: str) -> None:
    """One line."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


async def _judged(cases: list[Case], stand: Stand) -> list[str]:
    return ["ok" if (other := await judge(case, stand)) is None else other for case in cases]


async def _ours(cases: list[Case], backend: Backend, stack: ExitStack) -> list[str]:
    begin = serving(f"http://127.0.0.1:{backend.port}", "--source", "none")
    proxy = await asyncio.to_thread(stack.enter_context, begin)
    parts = urlsplit(proxy.url)
    stand = Stand(parts.hostname or "", parts.port or 0, backend, processes(proxy.process.pid))
    return await _judged(cases, stand)


async def _peer(peer: Peer, cases: list[Case], backend: Backend, stack: ExitStack) -> list[str]:
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    begin = all_started((peer,), folder, backend.port)
    started, skipped = await asyncio.to_thread(stack.enter_context, begin)
    if not started:
        say(f"{peer.name} is left out: {skipped[peer.name]}")
        return ["not judged"] * len(cases)
    running = started[0]
    return await _judged(cases, Stand("127.0.0.1", running.port, backend, running.pids))


async def columns(names: list[str], cases: list[Case]) -> dict[str, list[str]]:
    """Return the result of each case, by proxy."""
    found: dict[str, list[str]] = {}
    backend = Backend()
    await backend.up()
    peers = [peer for peer in PEERS if peer.name in names or not names]
    with ExitStack() as stack:
        if not names or OURS in names:
            found[OURS] = await _ours(cases, backend, stack)
        for peer in peers:
            if (why := peer.missing()) is not None:
                say(f"{peer.name} is left out: {why}")
            else:
                found[peer.name] = await _peer(peer, cases, backend, stack)
    return found


async def _url(url: str, port: int, cases: list[Case]) -> dict[str, list[str]]:
    backend = Backend()
    backend.port = port
    await backend.up()
    parts = urlsplit(url)
    return {url: await _judged(cases, Stand(parts.hostname or "", parts.port or 80, backend))}


def table(cases: list[Case], found: dict[str, list[str]]) -> list[str]:
    """Lines of Markdown."""
    lines = [f"| case | {' | '.join(found)} |", "|---|" + "---|" * len(found)]
    group = ""
    for number, case in enumerate(cases):
        if case.group != group:
            group = case.group
            lines.append(f"| **{group}** |" + " |" * len(found))
        cells = (column[number] for column in found.values())
        lines.append(f"| {case.title} | {' | '.join(cells)} |")
    counts = (f"{column.count('ok')} of {len(cases)}" for column in found.values())
    return [*lines, f"| passed | {' | '.join(counts)} |"]


def main(words: list[str]) -> int:
    """Print the table; status 1 where jouleproxy or the URL differs."""
    parser = argparse.ArgumentParser(prog="python -m tests.contract", description=__doc__)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--url")
    parser.add_argument("--backend-port", type=int)
    parser.add_argument("--only", default="", help="cases with this in their group or title")
    asked = parser.parse_args(words)
    unknown = set(asked.names) - {OURS} - {peer.name for peer in PEERS}
    if unknown or bool(asked.url) != bool(asked.backend_port):
        parser.error(f"names: {OURS}, {', '.join(p.name for p in PEERS)}; --url goes with --backend-port")
    cases = [case for case in CASES if asked.only in f"{case.group}: {case.title}"]
    if asked.url:
        found = asyncio.run(_url(asked.url, asked.backend_port, cases))
    else:
        found = asyncio.run(columns(asked.names, cases))
    for line in table(cases, found):
        say(line)
    return int(any(cell != "ok" for name in (OURS, asked.url) for cell in found.get(name, [])))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
