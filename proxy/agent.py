"""``jouleproxy agent``: serve this host's energy samples to proxies on other hosts. It relays no requests.

Samples are numbered and kept for some minutes. Each proxy requests those after the last one it received, so
that several proxies can read one agent, and a short interruption of the network loses nothing. On an address
other than loopback it requires a token.
"""

import asyncio
import hmac
import itertools
import secrets
import signal
import sys
import threading
from collections import deque
from typing import Final

import msgspec
from aiohttp import web
from aiohttp.typedefs import Handler

from proxy.clock import now_ns
from proxy.config import Address, ConfigError, MeterConfig
from proxy.config.settings import is_loopback
from proxy.core.events import Sample
from proxy.energy.choice import Choice, choose
from proxy.energy.sampling.sampler import Sampler
from proxy.energy.sources.agent_protocol import (
    DEVICES_PATH,
    SAMPLES_PATH,
    AgentDevice,
    AgentDevices,
    AgentSamples,
)

KEEP_SAMPLES: Final = 50_000  # 8 devices at 20 Hz: five minutes


class Buffer:
    """Numbered samples of which the newest ``keep`` are kept. Thread-safe: samplers add, the server reads.

    Attributes:
        agent: Random id of this process, by which a proxy recognises a restart.
        last: Number of the newest sample.
    """

    def __init__(self, keep: int = KEEP_SAMPLES) -> None:
        self.agent = secrets.token_hex(8)
        self.last = 0
        self._samples: deque[Sample] = deque(maxlen=keep)
        self._lock = threading.Lock()

    def add(self, samples: list[Sample]) -> None:
        """Append new samples."""
        with self._lock:
            self._samples.extend(samples)
            self.last += len(samples)

    def after(self, number: int, agent: str, t_ns: int) -> AgentSamples:
        """Return the samples with numbers above ``number``.

        Args:
            number: Number of the last sample that the proxy received.
            agent: Id of the agent it received it from; all kept samples are returned if it is another one.
            t_ns: Present time of the monotonic clock.
        """
        with self._lock:
            count_new = self.last - (number if agent == self.agent else 0)
            count = min(max(count_new, 0), len(self._samples))
            newest = list(itertools.islice(reversed(self._samples), count))
            last = self.last
        return AgentSamples(self.agent, t_ns, last, max(count_new, 0) - count, tuple(reversed(newest)))


def application(choice: Choice, buffer: Buffer, token: str | None) -> web.Application:
    """Return the agent's web application; with a token, all paths but the health check require it."""
    devices = tuple(
        AgentDevice(f.device, f.reading, f.update_period_s, f.call_latency_s, f.notes) for f in choice.found
    )

    async def list_devices(_request: web.Request) -> web.Response:
        return _json(AgentDevices(buffer.agent, choice.name or "", buffer.last, devices))

    async def samples(request: web.Request) -> web.Response:
        after = request.query.get("after", "0")
        if not (after.isascii() and after.isdecimal() and len(after) < 20):
            return web.Response(status=400, text=f"after: must be a number, not {after!r}\n")
        return _json(buffer.after(int(after), request.query.get("agent", ""), now_ns()))

    async def healthy(_request: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    @web.middleware
    async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
        given = request.headers.get("Authorization", "").removeprefix("Bearer ")
        required = token is not None and request.path != "/healthz"
        if required and not hmac.compare_digest(
            given.encode(errors="surrogateescape"), (token or "").encode()
        ):
            return web.Response(status=401, text="send the agent's token as 'Authorization: Bearer TOKEN'\n")
        return await handler(request)

    app = web.Application(middlewares=[guard])
    app.add_routes(
        [
            web.get(DEVICES_PATH, list_devices),
            web.get(SAMPLES_PATH, samples),
            web.get("/healthz", healthy),
        ]
    )
    return app


def run(config: MeterConfig, listen: Address) -> int:
    """Serve until SIGTERM or SIGINT.

    Returns:
        The exit status, 0.

    Raises:
        ConfigError: for an address, source or device that cannot be used, or a missing token.
    """
    if not is_loopback(listen.host) and not config.agent_token:
        raise ConfigError(
            f"--listen {listen.host}:{listen.port} is open beyond this host: give --agent-token, "
            "or listen on 127.0.0.1"
        )
    choice = choose(config)
    for line in choice.lines:
        _say(line)
    if not choice.opened:
        raise ConfigError("agent: nothing to serve: no energy source was found; see jouleproxy devices")
    return asyncio.run(_serve(config, listen, choice))


async def _serve(config: MeterConfig, listen: Address, choice: Choice) -> int:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    buffer = Buffer()
    samplers = [Sampler(o.source, buffer.add, config.sample_hz) for o in choice.opened]
    runner = web.AppRunner(application(choice, buffer, config.agent_token), access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, listen.host, listen.port).start()
    except OSError as error:
        await runner.cleanup()
        raise ConfigError(
            f"--listen {listen.host}:{listen.port} cannot be bound: {error.strerror}"
        ) from error
    for sampler in samplers:
        sampler.start()
    host, port = runner.addresses[0][:2]
    _say(f"agent on http://{host}:{port}; a proxy reads it by --source agent:http://{host}:{port}")
    await stop.wait()
    for sampler in samplers:
        await asyncio.to_thread(sampler.stop)
    await runner.cleanup()
    return 0


def _json(value: msgspec.Struct) -> web.Response:
    return web.Response(body=msgspec.json.encode(value), content_type="application/json")


def _say(line: str) -> None:
    sys.stderr.write(f"jouleproxy: {line}\n")
    sys.stderr.flush()
