import httpx
import msgspec
import pytest

from proxy.core.events import Device, Sample
from proxy.energy.source import SensorError
from proxy.energy.sources.agent import MAX_AGE_NS, AgentSource
from proxy.energy.sources.agent_protocol import DEVICES_PATH, AgentDevice, AgentDevices, AgentSamples
from proxy.units import NS_PER_MS, NS_PER_SECOND

FAR_NS = 777 * NS_PER_SECOND  # how much the agent's clock is ahead of ours


class Far:
    """An agent, its clock and ours; each request takes 2 ms."""

    def __init__(self) -> None:
        self.now_ns = 100 * NS_PER_SECOND
        self.name = "first"
        self.samples: list[Sample] = []
        self.asked: list[str] = []

    def clock(self) -> int:
        return self.now_ns

    def answer(self, request: httpx.Request) -> httpx.Response:
        if request.headers.get("Authorization") != "Bearer secret":
            return httpx.Response(401)
        self.now_ns += NS_PER_MS
        far_ns = self.now_ns + FAR_NS
        self.now_ns += NS_PER_MS
        if request.url.path == DEVICES_PATH:
            device = AgentDevice(Device("gpu0", "H100", source="nvml"), "energy counter", 0.02)
            body = msgspec.json.encode(AgentDevices(self.name, "nvml-simulated", 40, (device,)))
        else:
            self.asked.append(f"{request.url.params['agent']} {request.url.params['after']}")
            sent, self.samples = tuple(self.samples), []
            body = msgspec.json.encode(AgentSamples(self.name, far_ns, 40 + len(self.asked), 0, sent))
        return httpx.Response(200, content=body)

    def source(self, token: str | None = "secret") -> AgentSource:
        return AgentSource(
            "http://gpuhost:9009", token, self.clock, transport=httpx.MockTransport(self.answer)
        )


def test_devices_are_those_of_a_host_and_say_what_is_simulated() -> None:
    source = Far().source()
    (found,) = source.open()
    assert (found.device.id, found.device.source) == ("gpuhost/gpu0", "agent:nvml-simulated")
    assert source.name == "agent:nvml-simulated"
    assert found.update_period_s == 0.02
    assert "clock within 1 ms" in found.notes
    source.close()


def test_stamps_are_ours_and_nothing_is_asked_for_twice() -> None:
    far = Far()
    source = far.source()
    source.open()
    stamp = far.now_ns - 30 * NS_PER_MS
    far.samples = [Sample(stamp + FAR_NS, "gpu0", energy_mj=5.0, source="nvml")]
    assert source.read() == [Sample(stamp, "gpuhost/gpu0", 5.0, None, "agent:nvml-simulated")]
    assert source.read() == []
    assert far.asked == ["first 40", "first 41", "first 42", "first 43"]
    source.close()


def test_what_is_old_after_a_break_is_left_out() -> None:
    far = Far()
    source = far.source()
    source.open()
    old = far.now_ns + FAR_NS - MAX_AGE_NS - NS_PER_SECOND - NS_PER_MS
    far.samples = [Sample(old + k * NS_PER_SECOND, "gpu0", energy_mj=float(k)) for k in range(4)]
    assert [s.energy_mj for s in source.read()] == [2.0, 3.0]
    source.close()


def test_a_restarted_agent_has_another_clock() -> None:
    far = Far()
    source = far.source()
    source.open()
    far.name = "second"
    far.now_ns += NS_PER_SECOND
    source.read()
    source.read()
    assert far.asked[-1].startswith("second")
    source.close()


@pytest.mark.parametrize(("token", "reason"), [(None, "rejects the token"), ("wrong", "rejects the token")])
def test_a_wrong_token(token: str | None, reason: str) -> None:
    source = Far().source(token)
    with pytest.raises(SensorError, match=reason):
        source.open()
    source.close()


def test_what_is_no_agent_is_said() -> None:
    transport = httpx.MockTransport(lambda _: httpx.Response(200, text="hello"))
    source = AgentSource("http://gpuhost:9009", transport=transport)
    with pytest.raises(SensorError, match="is not a jouleproxy agent"):
        source.open()
    source.close()
    with pytest.raises(SensorError, match="should be http://HOST:PORT"):
        AgentSource("gpuhost:9009")
