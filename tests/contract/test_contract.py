"""Every case, before ``jouleproxy serve`` as installed: this is the list of what the relay promises."""

import asyncio
from collections.abc import Iterator

import pytest

from tests.contract.backend import Backend
from tests.contract.cases import CASES
from tests.contract.stand import Case, Stand, judge, processes
from tests.e2e.serving import serving

WORDS = ("--source", "none")


@pytest.fixture(scope="module")
def runner() -> Iterator[asyncio.Runner]:
    """One loop for all cases: the backend keeps its port."""
    with asyncio.Runner() as made:
        yield made


@pytest.fixture(scope="module")
def stand(runner: asyncio.Runner) -> Iterator[Stand]:
    backend = Backend()
    runner.run(backend.up())
    with serving(f"http://127.0.0.1:{backend.port}", *WORDS) as proxy:
        port = int(proxy.url.rpartition(":")[2])
        yield Stand("127.0.0.1", port, backend, processes(proxy.process.pid))
    runner.run(backend.down())


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.group}: {case.title}")
def test_jouleproxy(case: Case, runner: asyncio.Runner, stand: Stand) -> None:
    assert runner.run(judge(case, stand)) is None
