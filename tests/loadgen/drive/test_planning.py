import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadgen.config.spec import Spec
from loadgen.drive.pacer import STOP, Capped, ClosedLoop, OpenLoop, schedule_ns
from loadgen.drive.planning import plan, share_of, warm_connections
from proxy.units import NS_PER_SECOND


def spec(**changes: object) -> Spec:
    fields: dict[str, object] = {
        "command": "run",
        "mode": "rate",
        "levels": (50.0,),
        "url": "http://127.0.0.1:1",
        "admin_url": "http://127.0.0.1:2",
        "duration_seconds": 4.0,
    }
    return Spec(**(fields | changes))  # type: ignore[arg-type]  # of the fields' own types


def dealt(one: Spec, workers: int) -> list[list[int]]:
    """Return the schedule of each worker."""
    found = []
    for worker in range(workers):
        pacer = plan(one, one.levels[0], worker, workers)[1]
        assert isinstance(pacer, OpenLoop)
        found.append(list(schedule_ns(pacer)))
    return found


@given(
    workers=st.integers(1, 9),
    seed=st.integers(0, 5),
    arrivals=st.sampled_from(["poisson", "constant", "gamma:2", "ramp:1..80", "sine:0.5,2"]),
    requests=st.none() | st.integers(1, 150),
)
def test_the_schedules_of_all_workers_add_up_to_the_one_schedule(
    workers: int, seed: int, arrivals: str, requests: int | None
) -> None:
    asked = spec(arrivals=arrivals, seed=seed, requests=requests)
    (whole,) = dealt(asked, 1)
    parts = dealt(asked, workers)
    joint = [parts[k % workers][k // workers] for k in range(sum(map(len, parts)))]
    assert joint == whole


def test_the_combined_arrivals_of_workers_are_poisson() -> None:
    joint = sorted(t for part in dealt(spec(levels=(500.0,), duration_seconds=20.0), 7) for t in part)
    gaps = np.sort(np.diff(joint)) / NS_PER_SECOND
    expected = 1.0 - np.exp(-500.0 * gaps)
    distance = np.abs(expected - np.arange(1, len(gaps) + 1) / len(gaps)).max()
    assert distance < 1.63 / np.sqrt(len(gaps)), "Kolmogorov-Smirnov, 1 %"


@given(whole=st.integers(0, 1000), workers=st.integers(1, 12))
def test_shares_add_up_and_differ_by_at_most_one(whole: int, workers: int) -> None:
    parts = [share_of(whole, worker, workers) for worker in range(workers)]
    assert sum(parts) == whole
    assert max(parts) - min(parts) <= 1
    assert parts == sorted(parts, reverse=True)


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_a_closed_loop_is_divided_and_so_are_its_connections(workers: int) -> None:
    one = spec(mode="concurrency", levels=(3.0,), requests=11)
    pacers = [plan(one, 3.0, worker, workers)[1] for worker in range(workers)]
    assert all(isinstance(pacer, ClosedLoop) for pacer in pacers)
    assert sum(pacer.concurrency for pacer in pacers if isinstance(pacer, ClosedLoop)) == 3
    assert sum(pacer.requests or 0 for pacer in pacers if isinstance(pacer, ClosedLoop)) == 11
    assert sum(warm_connections(one, 3.0, worker, workers) for worker in range(workers)) == 3
    if workers > 3:
        assert pacers[-1].decide(0, 0, 0) is STOP, "a worker without a part does not wait for ever"


def test_a_cap_is_divided() -> None:
    pacers = [plan(spec(max_in_flight=5), 50.0, worker, 2)[1] for worker in range(2)]
    assert [pacer.limit for pacer in pacers if isinstance(pacer, Capped)] == [3, 2]
