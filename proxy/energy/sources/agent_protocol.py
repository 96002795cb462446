"""Messages between an agent and a proxy: JSON over HTTP, requested by the proxy."""

from typing import Final

import msgspec

from proxy.core.events import Device, Sample

DEVICES_PATH: Final = "/v1/devices"
SAMPLES_PATH: Final = "/v1/samples"


class AgentDevice(msgspec.Struct, frozen=True):
    """One device of an agent: the fields of :class:`~proxy.energy.source.Found`."""

    device: Device
    reading: str
    update_period_s: float | None = None
    call_latency_s: float | None = None
    notes: tuple[str, ...] = ()


class AgentDevices(msgspec.Struct, frozen=True):
    """Response of ``GET /v1/devices``.

    Attributes:
        agent: Random id of the agent's process; differs after a restart.
        source: Name of its source.
        last: Number of the newest sample.
        devices: Its devices.
    """

    agent: str
    source: str
    last: int
    devices: tuple[AgentDevice, ...]


class AgentSamples(msgspec.Struct, frozen=True):
    """Response of ``GET /v1/samples?after=N&agent=ID``: the samples with numbers above N.

    Attributes:
        agent: Random id of the agent's process.
        now_ns: Present time; it and the stamps of samples are nanoseconds of the agent host's monotonic
            clock.
        last: Number of the newest sample.
        missed: Samples above N that the agent no longer keeps.
        samples: The samples, oldest first.
    """

    agent: str
    now_ns: int
    last: int
    missed: int
    samples: tuple[Sample, ...]


DEVICES: Final = msgspec.json.Decoder(AgentDevices)
SAMPLES: Final = msgspec.json.Decoder(AgentSamples)
