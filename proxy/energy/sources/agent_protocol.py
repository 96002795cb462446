"""What an agent and a proxy say to each other: JSON over HTTP, one way of asking."""

from typing import Final

import msgspec

from proxy.core.events import Device, Sample

DEVICES_PATH: Final = "/v1/devices"
SAMPLES_PATH: Final = "/v1/samples"


class AgentDevice(msgspec.Struct, frozen=True):
    """One device of an agent, as :class:`~proxy.energy.source.Found` has it."""

    device: Device
    reading: str
    update_period_s: float | None = None
    call_latency_s: float | None = None
    notes: tuple[str, ...] = ()


class AgentDevices(msgspec.Struct, frozen=True):
    """``GET /v1/devices``. ``agent`` differs after each start of the agent; ``last`` as below."""

    agent: str
    source: str
    last: int
    devices: tuple[AgentDevice, ...]


class AgentSamples(msgspec.Struct, frozen=True):
    """``GET /v1/samples?after=N``: samples numbered above N; ``last`` is the newest's number.

    Stamps and ``now_ns`` are the agent host's monotonic clock. ``missed`` samples were forgotten unread.
    """

    agent: str
    now_ns: int
    last: int
    missed: int
    samples: tuple[Sample, ...]


DEVICES: Final = msgspec.json.Decoder(AgentDevices)
SAMPLES: Final = msgspec.json.Decoder(AgentSamples)
