"""Minutes of mixed load, a fault every second: no wrong byte, nothing leaked. ``make soak MINUTES=10``."""

import asyncio
import contextlib
import os
import signal
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest

from proxy.clock import now_ns
from proxy.simulator.gpu.fake_nvml import FakeNvml, SimulatedDevice
from tests.e2e.serving import Serving, serving_beside
from tests.soak.backend import SoakBackend
from tests.soak.faults import Faults
from tests.soak.load import Load
from tests.soak.watch import Memory, descriptors

pytestmark = [
    pytest.mark.soak,
    # A connection that asyncio accepts as its server closes has no owner: of backends here, not of the proxy
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

MINUTES = float(os.environ.get("MINUTES", "1"))
USERS = 30
BACKENDS = 4
QUIET_SECONDS = 7.0  # longer than any idle connection lives
SETTINGS = """
workers = 2
policy = "steps"
keep_records = 2000
drain_timeout_seconds = 5
connect_timeout_seconds = 1
first_byte_timeout_seconds = 1.5
stall_timeout_seconds = 1.0
client_idle_timeout_seconds = 3
upstream_idle_timeout_seconds = 2
health_interval_seconds = 0.5
health_timeout_seconds = 0.5
eject_seconds = 0.5
slow_start_seconds = 2
sticky = "session"
log_level = "error"
"""


def write(path: Path, backends: Sequence[SoakBackend], source: str) -> None:
    tables = [
        f'[[backends]]\nurl = "{b.url}"\nname = "b{n}"\ndevices = ["{n}"]\n' for n, b in enumerate(backends)
    ]
    path.write_text(f'source = "simulated:{source}"\n{SETTINGS}' + "".join(tables))


@contextlib.asynccontextmanager
async def backends() -> AsyncIterator[list[SoakBackend]]:
    async with contextlib.AsyncExitStack() as stack:
        yield [await stack.enter_async_context(SoakBackend()) for _ in range(BACKENDS)]


async def admin(proxy: Serving, path: str) -> Any:
    async with httpx.AsyncClient(timeout=5) as client:
        return (await client.get(proxy.admin + path)).json()


async def until_whole(proxy: Serving, wait_seconds: float = 0.0) -> list[dict[str, int]]:
    """Return the resources of both workers, once both run, after a while."""
    await asyncio.sleep(wait_seconds)
    async with asyncio.timeout(20):
        while True:
            with contextlib.suppress(httpx.TransportError):
                found: list[dict[str, int]] = (await admin(proxy, "/backends"))["relays"]
                if len(found) == 2:
                    return found
            await asyncio.sleep(0.2)


async def test_soak(tmp_path: Path) -> None:
    seconds = MINUTES * 60
    settings, state = tmp_path / "j.toml", tmp_path / "state"
    with FakeNvml(state, [SimulatedDevice(idle_watts=100.0)] * BACKENDS, now_ns()):
        async with backends() as servers:
            write(settings, servers, str(state))
            async with serving_beside("--config", str(settings)) as proxy:
                await soak(
                    proxy, servers, seconds, lambda count: reload(proxy, settings, servers[:count], state)
                )


def reload(proxy: Serving, path: Path, servers: Sequence[SoakBackend], state: Path) -> None:
    write(path, servers, str(state))
    proxy.process.send_signal(signal.SIGHUP)


async def soak(
    proxy: Serving, servers: Sequence[SoakBackend], seconds: float, reload_to: Callable[[int], None]
) -> None:
    relays = await until_whole(proxy)
    before = {
        "tasks": max(r["tasks"] for r in relays),
        "descriptors": max(descriptors(r["pid"]) for r in relays),
    }
    spared = relays[0]["pid"]
    memory, load = Memory(spared), Load(proxy.url, seed=1)
    faults = Faults(servers, proxy, spared, reload_to)
    stop = asyncio.Event()
    watching = asyncio.ensure_future(memory.watch())
    loading = asyncio.ensure_future(load.run(USERS, stop))
    await faults.run(seconds)
    stop.set()
    await asyncio.wait_for(loading, 30)
    watching.cancel()
    reload_to(BACKENDS)
    await asyncio.sleep(QUIET_SECONDS)
    looks = [await until_whole(proxy, 1.0 + look / 7) for look in range(5)]  # a health check may be under way
    relays = min(looks, key=lambda found: sum(relay["connections"] for relay in found))
    report(load, faults, memory, relays, before, seconds)
    judge(load, memory, relays, before)
    async with httpx.AsyncClient() as client:
        page = (await client.get(proxy.admin + "/metrics")).text
    flights = [line for line in page.splitlines() if line.startswith("jouleproxy_requests_in_flight{")]
    assert all(line.endswith(" 0.0") for line in flights), flights


def judge(load: Load, memory: Memory, relays: list[dict[str, int]], before: dict[str, int]) -> None:
    assert not load.wrong, load.wrong[:10]
    assert load.open == 0
    for kind in ("json", "stream", "upload", "slow", "tunnel"):
        assert load.seen[kind, "ok"] > 0, kind
    for relay in relays:
        assert relay["clients"] == 0, relay
        assert relay["requests"] == 0, relay
        assert relay["connections"] == 0, relay
        assert relay["tasks"] <= before["tasks"] + 1, (relay, before)
        assert descriptors(relay["pid"]) <= before["descriptors"] + 2, (descriptors(relay["pid"]), before)
    sizes = [size for _, size in memory.settled]
    assert max(sizes) - min(sizes) < 20, "MB: resident memory is not flat"


def report(
    load: Load,
    faults: Faults,
    memory: Memory,
    relays: list[dict[str, int]],
    before: dict[str, int],
    seconds: float,
) -> None:
    outcomes: Counter[str] = Counter()
    for (_, outcome), count in load.seen.items():
        outcomes[outcome] += count
    requests, befell = sum(outcomes.values()), sum(faults.done.values())
    lines = [
        f"{seconds:.0f} s, {USERS} users, {requests} requests, {befell} faults",
        f"outcomes: {dict(outcomes.most_common())}",
        f"by kind: {dict(sorted(load.seen.items()))}",
        f"faults: {dict(faults.done.most_common())}",
        f"wrong bytes: {len(load.wrong)}",
        f"at the end: {relays}, descriptors {[descriptors(r['pid']) for r in relays]}; before {before}",
        f"the worker that was spared: {memory.samples[0][1]:.1f} MB at first, {memory.samples[-1][1]:.1f} MB"
        f" at last, {memory.slope_mb_per_minute:+.3f} MB/min over the last two thirds",
    ]
    print(*lines, sep="\n")  # noqa: T201 - the figures for docs/benchmarks.md
