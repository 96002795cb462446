"""Several devices for a backend, several backends on a device: whose device is charged to whom.

The meter as the process runs it, on three simulated devices of known power; only the clock is the test's.
"""

from pathlib import Path

import pytest

from proxy.clock import now_ns
from proxy.config import Backend, MeterConfig
from proxy.core.events import Arrive, End, Sample
from proxy.energy.choice import choose
from proxy.exporters.base import Exporters
from proxy.ipc import Closed, Opened
from proxy.meter.meter import Meter
from proxy.schema import DeviceAccount, RequestEnergy
from proxy.simulator.gpu.fake_nvml import FakeNvml, SimulatedDevice
from proxy.units import NS_PER_MS, NS_PER_SECOND

WATTS = (300.0, 200.0, 100.0)
LARGE = Backend("http://127.0.0.1:8000", "large", devices=("0", "1"))  # tensor parallel
SMALL = Backend("http://127.0.0.1:8001", "small", devices=("gpu1",))  # shares a device with it
SECONDS = 4


def _run(
    tmp_path: Path, requests: dict[str, tuple[str, float, float]]
) -> tuple[dict[str, RequestEnergy], dict[str, DeviceAccount]]:
    """Requests ``{id: (backend, start, end)}`` in seconds; their records and the accounts."""
    start_ns = now_ns()
    devices = [SimulatedDevice(idle_watts=watts, update_ns=0) for watts in WATTS]
    with FakeNvml(tmp_path / "s", devices, start_ns - NS_PER_SECOND) as fake_nvml:
        config = MeterConfig(source=f"simulated:{tmp_path / 's'}", policy="overlap", reorder_seconds=0.01)
        choice = choose(config)
        meter = Meter(config, [LARGE, SMALL], choice.found, choice.name, Exporters([]))
        relay = meter.intake.connected()
        happened: list[tuple[int, Opened | Closed]] = []
        for key, (name, (backend, begin, end)) in enumerate(requests.items()):
            at, to = (start_ns + round(t * NS_PER_SECOND) for t in (begin, end))
            happened.append((at, Opened(key, Arrive(at, name, backend=backend))))
            happened.append((to, Closed(key, End(to, name, 200, completion_tokens=9, prompt_tokens=9))))
        happened.sort(key=lambda item: item[0])
        for tick in range(SECONDS * 20 + 1):
            t_ns = start_ns + tick * 50 * NS_PER_MS
            while happened and happened[0][0] <= t_ns:
                meter.receive(relay, [happened.pop(0)[1]])
            meter.intake.add_samples(
                [_sample(fake_nvml, device, t_ns) for device in range(len(WATTS))],
            )
            meter.tick(t_ns)
        meter.close()
        choice.close()
        records = {name: entry.record for name in requests if (entry := meter.ledger.get(name))}
        return records, {account.device: account for account in meter.attributor.accounts()}


def _sample(fake_nvml: FakeNvml, device: int, t_ns: int) -> Sample:
    return Sample(t_ns, f"gpu{device}", energy_mj=fake_nvml.truth_joules(device, t_ns) * 1000)


def test_a_backend_on_two_devices_has_a_share_of_each(tmp_path: Path) -> None:
    records, accounts = _run(tmp_path, {"r": ("large", 1.0, 3.0)})
    assert records["r"].devices == pytest.approx({"gpu0": 600.0, "gpu1": 400.0}, rel=0.03)
    assert records["r"].joules == pytest.approx(1000.0, rel=0.03)
    assert accounts["gpu2"].requests_joules == 0.0
    assert accounts["gpu2"].measured_joules > 100.0 * (SECONDS - 0.5)


def test_a_shared_device_is_divided_among_the_backends_on_it(tmp_path: Path) -> None:
    records, accounts = _run(tmp_path, {"a": ("large", 1.0, 3.0), "b": ("small", 1.0, 3.0)})
    assert records["a"].devices == pytest.approx({"gpu0": 600.0, "gpu1": 200.0}, rel=0.03)
    assert records["b"].devices == pytest.approx({"gpu1": 200.0}, rel=0.03)
    for account in accounts.values():
        parts = account.requests_joules + account.idle_joules + account.unattributed_joules
        assert parts == pytest.approx(account.measured_joules, rel=1e-9)
