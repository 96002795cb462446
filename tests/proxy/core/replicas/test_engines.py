"""Engines behind one backend, on engines of known truth."""

from dataclasses import replace

import numpy as np
import pytest

from proxy.core.attribution import Attributor
from proxy.core.events import Arrive, Device, End, Event, Header, Output, Sample
from proxy.core.policies import Steps
from proxy.core.shares import Share
from proxy.truth.deployments import DEPLOYMENTS, Deployment
from proxy.truth.fleet import Run, simulate
from proxy.units import NS_PER_MS as MS

REPLICAS = replace(DEPLOYMENTS["2 replicas"], seconds=20.0)
APART = replace(DEPLOYMENTS["disaggregated"], seconds=20.0)


def attributed(run: Run, chunk: int = 10_000) -> list[Share]:
    attributor = Attributor("steps")
    for first in range(0, len(run.events), chunk):
        attributor.feed_all(run.events[first : first + chunk])
    attributor.flush()
    return attributor.drain()


def errors(run: Run, shares: list[Share]) -> np.ndarray:
    return np.array([abs((s.joules or 0.0) / run.joules[s.request] - 1.0) for s in shares])


@pytest.mark.parametrize(
    "case",
    [
        REPLICAS,
        replace(REPLICAS, tensor_parallel=2),
        replace(REPLICAS, jitter_s=0.002),
        replace(APART, whole=0.1),
    ],
    ids=["replicas", "tensor-parallel replicas", "replicas behind a jittery network", "disaggregated"],
)
def test_each_engine_is_found_and_charged_apart(case: Deployment) -> None:
    run = simulate(case, 5)
    found = errors(run, attributed(run))
    assert np.median(found) < 0.02
    assert np.quantile(found, 0.95) < 0.10


def test_a_request_is_charged_on_the_devices_of_its_replica_only() -> None:
    shares = attributed(simulate(REPLICAS, 6))
    alone = [s for s in shares if len([j for j in s.devices.values() if j > 0.0]) == 1]
    assert len(alone) == len(shares)


def test_prompts_are_charged_on_the_prefill_device_and_tokens_on_the_other() -> None:
    shares = attributed(simulate(APART, 6))
    both = [s for s in shares if s.devices.get("gpu0", 0.0) > 0.0 and s.devices.get("gpu1", 0.0) > 0.0]
    assert len(both) > 0.9 * len(shares)


def test_the_engines_found_do_not_depend_on_how_events_are_batched() -> None:
    run = simulate(REPLICAS, 7)
    assert attributed(run, chunk=1) == attributed(run, chunk=777) == attributed(run)


def test_one_tensor_parallel_engine_stays_one() -> None:
    run = simulate(replace(REPLICAS, replicas=1, tensor_parallel=2, rate=12.0, jitter_s=0.005), 8)
    shares = attributed(run)
    assert all(s.devices["gpu0"] == pytest.approx(s.devices["gpu1"], rel=0.02) for s in shares)


def test_where_the_engines_are_not_found_the_intervals_are_wide() -> None:
    run = simulate(replace(REPLICAS, delay_s=0.02, jitter_s=0.02), 9)
    shares = attributed(run)
    inside = [(s.joules_low or 0.0) <= run.joules[s.request] <= (s.joules_high or 0.0) for s in shares]
    assert np.mean(inside) > 0.8


def test_a_split_that_the_energy_does_not_confirm_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    forgotten: list[str] = []
    monkeypatch.setattr("proxy.core.replicas.engines.devices_of_engines", lambda *_: None)
    monkeypatch.setattr(Steps, "forget", lambda _, group: forgotten.append(group.key[-1]))
    shares = attributed(simulate(REPLICAS, 5))
    assert forgotten[:2] == ["engine 1", "engine 2"]
    assert all(share.engines is None for share in shares)


def stream(name: str, begin_ms: int, end_ms: int, step_ms: int) -> list[Event]:
    """Return the events of a stream whose engine makes steps of ``step_ms``."""
    stamps = range((begin_ms // step_ms + 1) * step_ms, end_ms, step_ms)
    arrive = Arrive(begin_ms * MS, name, "chat", "m", True, ("gpu0", "gpu1"))
    end = End(end_ms * MS, name, 200, False, 100, 0, len(stamps))
    return [arrive, *(Output(t_ms * MS, name, 1) for t_ms in stamps), end]


@pytest.mark.parametrize(("end_s", "others_s"), [(30, 20), (80, 60), (50, 35)])
def test_an_engine_that_begins_after_the_windows_that_are_closed_is_not_split_off(
    end_s: int, others_s: int
) -> None:
    events = stream("alone", 1_000, end_s * 1_000, 30)
    for number in range(6):
        begin = others_s * 1_000 + 10 * number
        events += stream(f"a{number}", begin, begin + 50_000, 30) + stream(
            f"b{number}", begin, begin + 50_000, 37
        )
    for device in ("gpu0", "gpu1"):
        events += [Sample(100 * n * MS, device, energy_mj=30_000.0 * n) for n in range(10 * (others_s + 60))]
    attributor = Attributor("steps")
    attributor.feed(Header(1, (Device("gpu0"), Device("gpu1"))))
    attributor.feed_all(sorted(events, key=lambda event: event.t_ns or 0))
    attributor.flush()
    shares = attributor.drain()
    assert len(shares) == 13
    charged = sum(share.joules or 0.0 for share in shares)
    accounts = attributor.accounts()
    assert charged == pytest.approx(sum(account.requests_joules for account in accounts), rel=1e-9)
