"""Samples of a ``jouleproxy agent`` on another host: the proxy need not sit where the GPUs are.

Stamps are the agent host's monotonic clock, turned into ours by the exchanges themselves. Devices are named
``HOST/gpu0``; the source's name keeps the agent's (``agent:nvml``), so that what is simulated there says so.
"""

from collections.abc import Callable
from typing import Final, TypeVar
from urllib.parse import urlsplit

import httpx
import msgspec

from proxy.clock import now_ns
from proxy.core.events import Sample
from proxy.energy.source import Found, SensorError, SourceOptions
from proxy.energy.sources.agent_protocol import DEVICES, DEVICES_PATH, SAMPLES, SAMPLES_PATH, AgentSamples
from proxy.energy.sources.remote_clock import RemoteClock
from proxy.units import NS_PER_MS, NS_PER_SECOND

T = TypeVar("T")
MAX_AGE_NS: Final = 5 * NS_PER_SECOND  # older ones would hold up everything; a counter loses nothing
_TIMEOUT_SECONDS: Final = 2.0


class AgentSource:
    """One agent, asked a few times a second for what is new."""

    interval_s: float | None = 0.2

    def __init__(
        self,
        url: str,
        token: str | None = None,
        clock: Callable[[], int] = now_ns,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        host = urlsplit(url).hostname
        if host is None or urlsplit(url).scheme not in {"http", "https"}:
            raise SensorError(f"agent:{url}: should be http://HOST:PORT of a jouleproxy agent")
        self.name = "agent"
        self._url = url.rstrip("/")
        self._host = host
        self._clock = clock
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._client = httpx.Client(timeout=_TIMEOUT_SECONDS, transport=transport, headers=headers)
        self._far = RemoteClock()
        self._agent = ""
        self._after = 0

    def open(self) -> list[Found]:
        """Ask for the agent's devices; raises :class:`SensorError`."""
        answer = self._decode(DEVICES, self._get(DEVICES_PATH))
        self.name = f"agent:{answer.source}"
        self._agent, self._after = answer.agent, answer.last  # what it has from before is not ours
        self._take()
        self._take()  # the first exchange had to open the connection: this one tells the clock better
        error = f"clock within {(self._far.error_ns or 0) / NS_PER_MS:.2g} ms"
        return [
            Found(
                msgspec.structs.replace(d.device, id=self._id(d.device.id), source=self.name),
                d.reading,
                d.update_period_s,
                d.call_latency_s,
                (*d.notes, f"by the agent at {self._url}", error),
            )
            for d in answer.devices
        ]

    def read(self) -> list[Sample]:
        """What is new; raises :class:`SensorError`. After a break, only the last seconds of it."""
        oldest = self._clock() - MAX_AGE_NS
        samples = (
            msgspec.structs.replace(
                s, t_ns=self._far.here(s.t_ns), device=self._id(s.device), source=self.name
            )
            for s in self._take().samples
        )
        return [sample for sample in samples if sample.t_ns >= oldest]

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def _id(self, device: str) -> str:
        return f"{self._host}/{device}"

    def _take(self) -> AgentSamples:
        """One exchange: new samples, and what it tells of the far clock."""
        before = self._clock()
        answer = self._decode(SAMPLES, self._get(SAMPLES_PATH, self._after))
        after = self._clock()
        if answer.agent != self._agent:  # it, or its host, was started anew: so were numbers and clock
            self._agent, self._far = answer.agent, RemoteClock()
        self._far.exchange(before, answer.now_ns, after)
        self._after = answer.last
        return answer

    def _get(self, path: str, after: int | None = None) -> bytes:
        try:
            known = {"after": str(after or 0), "agent": self._agent}
            answer = self._client.get(self._url + path, params=known)
            if answer.status_code == 401:
                raise SensorError(f"agent: {self._url} refuses the token: give its --agent-token")
            return answer.raise_for_status().content
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise SensorError(f"agent: cannot read {self._url}: {error}") from error

    def _decode(self, decoder: "msgspec.json.Decoder[T]", body: bytes) -> T:
        try:
            return decoder.decode(body)
        except msgspec.MsgspecError as error:
            raise SensorError(f"agent: {self._url} is no jouleproxy agent: {error}") from error


def create(options: SourceOptions) -> AgentSource:
    """Create the source that :mod:`proxy.config.sources` registers as ``agent``."""
    return AgentSource(options.argument, options.agent_token)
