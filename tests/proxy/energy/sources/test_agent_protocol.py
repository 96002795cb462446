import msgspec

from proxy.core.events import Device, Sample
from proxy.energy.sources.agent_protocol import DEVICES, SAMPLES, AgentDevice, AgentDevices, AgentSamples


def test_what_is_sent_is_what_arrives() -> None:
    devices = AgentDevices("a", "nvml", 3, (AgentDevice(Device("gpu0", uuid="GPU-a"), "energy counter"),))
    assert DEVICES.decode(msgspec.json.encode(devices)) == devices
    samples = AgentSamples("a", 5, 2, 1, (Sample(4, "gpu0", energy_mj=1.5), Sample(5, "cpu0", power_mw=2)))
    assert SAMPLES.decode(msgspec.json.encode(samples)) == samples
