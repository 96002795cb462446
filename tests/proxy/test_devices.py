import io
import json
from pathlib import Path

import pytest

from proxy.cli import main
from proxy.clock import now_ns
from proxy.config import ConfigError, MeterConfig
from proxy.core.events import Device
from proxy.devices import as_lines, run
from proxy.energy.choice import Choice, OpenedSource
from proxy.energy.source import Found
from proxy.energy.sources.simulated import SimulatedSource
from proxy.simulator.gpu.fake_nvml import FakeNvml, SimulatedDevice


@pytest.fixture
def state(tmp_path: Path) -> str:
    return str(tmp_path / "state")


def test_a_simulated_device_says_so(state: str) -> None:
    with FakeNvml(Path(state), [SimulatedDevice()], now_ns()):
        text, data = io.StringIO(), io.StringIO()
        config = MeterConfig(source=f"simulated:{state}")
        assert run(config, text, as_json=False) == 0
        assert run(config, data, as_json=True) == 0
    found = json.loads(data.getvalue())
    assert found["source"] == "simulated"
    assert found["devices"][0]["update_period_seconds"] == pytest.approx(0.02, rel=0.05)
    assert found["devices"][0]["call_latency_seconds"] < 0.005
    assert found["devices"][0]["name"] == "NVIDIA H100 80GB HBM3 (simulated)"
    assert "source         simulated" in text.getvalue()


def test_nothing_to_measure_is_an_answer() -> None:
    out = io.StringIO()
    assert run(MeterConfig(source="none"), out, as_json=False) == 0
    assert out.getvalue() == "energy: disabled by the settings; the energy of requests is unknown\n"


def test_what_is_not_known_is_said() -> None:
    found = Found(Device("gpu0", gain_error=0.05), "power", None, 0.0021, ("n",))
    choice = Choice((OpenedSource(SimulatedSource(Path("none")), (found,)),))
    assert as_lines(choice) == [
        "gpu0  name not known",
        "  uuid           not known",
        "  source         simulated, power",
        "  update period  not known",
        "  call latency   2.1 ms",
        "  gain error     5% (90 %)",
        "  note           n",
    ]


def test_a_source_asked_for_by_name_must_open(state: str) -> None:
    with pytest.raises(ConfigError, match="source: "):
        run(MeterConfig(source=f"simulated:{state}"), as_json=False)


def test_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["devices", "--json", "--source", "none"]) == 0
    assert json.loads(capsys.readouterr().out)["source"] is None
