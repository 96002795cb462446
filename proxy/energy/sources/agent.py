"""Read the samples of a ``jouleproxy agent`` on another host, for a proxy that does not run on the GPU host.

Stamps of the agent host's monotonic clock are converted to this host's by the exchanges themselves. Devices
are named ``HOST/gpu0``. The name of the source contains the agent's (``agent:nvml``), so that simulated
readings remain recognisable.
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
# Older samples are discarded: they would delay the attribution of everything, and a counter loses no energy.
MAX_AGE_NS: Final = 5 * NS_PER_SECOND
_TIMEOUT_SECONDS: Final = 2.0


class AgentSource:
    """One agent, polled five times a second for new samples.

    Args:
        url: Base URL of the agent.
        token: Its ``--agent-token``, or None.
        clock: Monotonic clock in nanoseconds.
        transport: HTTP transport of httpx; tests replace it.

    Raises:
        SensorError: if the URL is not ``http(s)://HOST:PORT``.
    """

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
        self._remote = RemoteClock()
        self._agent = ""
        self._after = 0

    def open(self) -> list[Found]:
        """Request the agent's devices; raises :class:`SensorError`."""
        reply = self._decode(DEVICES, self._get(DEVICES_PATH))
        self.name = f"agent:{reply.source}"
        self._agent, self._after = reply.agent, reply.last  # older samples are of no interest
        self._exchange()
        self._exchange()  # the first one included opening the connection: this one locates the clock better
        error = f"clock within {(self._remote.error_ns or 0) / NS_PER_MS:.2g} ms"
        return [
            Found(
                msgspec.structs.replace(d.device, id=self._id(d.device.id), source=self.name),
                d.reading,
                d.update_period_s,
                d.call_latency_s,
                (*d.notes, f"by the agent at {self._url}", error),
            )
            for d in reply.devices
        ]

    def read(self) -> list[Sample]:
        """Return new samples, after an interruption those of the last 5 s; raises :class:`SensorError`."""
        oldest = self._clock() - MAX_AGE_NS
        samples = (
            msgspec.structs.replace(
                s, t_ns=self._remote.to_local(s.t_ns), device=self._id(s.device), source=self.name
            )
            for s in self._exchange().samples
        )
        return [sample for sample in samples if sample.t_ns >= oldest]

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def _id(self, device: str) -> str:
        return f"{self._host}/{device}"

    def _exchange(self) -> AgentSamples:
        """Request new samples and add the exchange to the model of the remote clock."""
        before = self._clock()
        reply = self._decode(SAMPLES, self._get(SAMPLES_PATH, self._after))
        after = self._clock()
        if reply.agent != self._agent:  # the agent or its host was restarted, and with it numbers and clock
            self._agent, self._remote = reply.agent, RemoteClock()
        self._remote.add_exchange(before, reply.now_ns, after)
        self._after = reply.last
        return reply

    def _get(self, path: str, after: int | None = None) -> bytes:
        try:
            parameters = {"after": str(after or 0), "agent": self._agent}
            response = self._client.get(self._url + path, params=parameters)
            if response.status_code == 401:
                raise SensorError(f"agent: {self._url} rejects the token (401): give its --agent-token")
            return response.raise_for_status().content
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise SensorError(f"agent: cannot read {self._url}: {error}") from error

    def _decode(self, decoder: "msgspec.json.Decoder[T]", body: bytes) -> T:
        try:
            return decoder.decode(body)
        except msgspec.MsgspecError as error:
            raise SensorError(f"agent: {self._url} is not a jouleproxy agent: {error}") from error


def create(options: SourceOptions) -> AgentSource:
    """Create the source that :mod:`proxy.config.sources` registers as ``agent``."""
    return AgentSource(options.argument, options.agent_token)
