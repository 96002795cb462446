import numpy as np

from proxy.core.activity.outputs import Streams
from proxy.core.activity.tracks import Group, Track
from proxy.core.activity.work import Entries, Work
from proxy.core.energy.accounts import Account
from proxy.core.events import Sample
from proxy.core.replicas.engine_devices import are_unlike, devices_of_engines
from tests.proxy.core.scene import MS

WINDOWS = 80
WINDOW_NS = 100 * MS


def account(device: str, joules: np.ndarray) -> Account:
    """Return a device that used so many joules in each of the windows."""
    found = Account(device)
    for index, total in enumerate(np.concatenate([[0.0], np.cumsum(joules)]).tolist()):
        found.series.feed(Sample(index * WINDOW_NS, device, energy_mj=1e3 * total))
    return found


def work(tokens: np.ndarray) -> Work:
    """Return the work of an engine that made so many tokens for one request in each of the windows."""
    start = np.arange(WINDOWS, dtype=np.int64) * WINDOW_NS
    cells = np.arange(WINDOWS)
    entries = Entries(cells, np.zeros(WINDOWS, np.int64), np.ones(WINDOWS), tokens)
    nobody = np.zeros(WINDOWS)
    span = np.array([0]), np.array([WINDOWS])
    return Work(1, start, start + WINDOW_NS, nobody, nobody, *span, (entries,))


def found(first: np.ndarray, second: np.ndarray, joules: list[np.ndarray]) -> list[tuple[str, ...]] | None:
    names = tuple(f"gpu{index}" for index in range(len(joules)))
    group = Group(("m",), names, Streams())
    works: list[tuple[Group, list[Track], Work]] = [(group, [], work(own)) for own in (first, second)]
    accounts = [account(name, own) for name, own in zip(names, joules, strict=True)]
    return devices_of_engines(names, works, accounts, WINDOWS * WINDOW_NS)


def tokens(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).uniform(10.0, 100.0, WINDOWS)


def test_each_device_goes_to_the_engine_whose_work_explains_its_energy() -> None:
    one, two = tokens(1), tokens(2)
    assert found(one, two, [5.0 + 0.2 * two, 5.0 + 0.2 * one]) == [("gpu1",), ("gpu0",)]


def test_the_devices_of_a_tensor_parallel_replica_are_found_together() -> None:
    one, two = tokens(1), tokens(2)
    joules = [5.0 + 0.2 * one, 5.0 + 0.2 * two, 4.0 + 0.1 * one, 4.0 + 0.1 * two]
    assert found(one, two, joules) == [("gpu0", "gpu2"), ("gpu1", "gpu3")]


def test_devices_that_share_the_work_of_both_belong_to_no_engine() -> None:
    one, two = tokens(1), tokens(2)
    both = 5.0 + 0.1 * (one + two)
    assert found(one, two, [both, both + 1.0]) is None


def test_devices_of_one_engine_are_alike_and_those_of_replicas_are_not() -> None:
    one, two = tokens(1), tokens(2)
    end = WINDOWS * WINDOW_NS
    names = ("gpu0", "gpu1")
    assert are_unlike(names, [account("gpu0", one), account("gpu1", 1.3 * one)], end) is False
    assert are_unlike(names, [account("gpu0", one), account("gpu1", two)], end) is True
    assert are_unlike(names, [account("gpu0", one)], end) is None
    assert are_unlike(names, [account("gpu0", one), account("gpu1", 0.8 * one + 0.2 * two)], end) is None


def test_a_reset_of_a_counter_does_not_make_devices_unlike() -> None:
    count, constant = 20, 30.0
    steady, reset = Account("gpu0"), Account("gpu1")
    for index in range(count + 1):
        steady.series.feed(Sample(index * WINDOW_NS, "gpu0", energy_mj=1e3 * constant * index))
        since = index if index < count // 2 else index - count // 2
        reset.series.feed(Sample(index * WINDOW_NS, "gpu1", energy_mj=1e3 * constant * since))
    assert are_unlike(("gpu0", "gpu1"), [steady, reset], count * WINDOW_NS) is False
