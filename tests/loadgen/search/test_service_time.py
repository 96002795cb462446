"""The mean time in the server, from probes that end before all of their requests."""

import msgspec
import numpy as np
import pytest

from loadgen.results.records import Record
from loadgen.search.service_time import ServiceTime, restricted_mean
from tests.loadgen.samples import record

S = 1_000_000_000


def seen(seed: int, rate: float, mean_s: float, elapsed_s: float) -> list[Record]:
    """Return what a client has of exponential services when a probe ends."""
    rng = np.random.default_rng(seed)
    at = np.sort(rng.random(int(rate * elapsed_s)) * elapsed_s)
    ends = at + rng.exponential(mean_s, len(at))
    return [
        _under_way(i, begin) if end > elapsed_s else record(i, scheduled=int(begin * S), end=int(end * S))
        for i, (begin, end) in enumerate(zip(at.tolist(), ends.tolist(), strict=True))
    ]


def _under_way(index: int, begin: float) -> Record:
    return msgspec.structs.replace(record(index, scheduled=int(begin * S)), first_ns=None, end_ns=None)


def test_requests_in_flight_count_for_the_mean() -> None:
    records = seen(1, 400, 0.5, 1.2)
    ended = [(r.end_ns - r.scheduled_ns) / S for r in records if r.end_ns is not None]
    assert np.mean(ended) < 0.35
    assert ServiceTime().mean(records, 1.2) == pytest.approx(0.5, rel=0.15)


def test_constant_times_are_exact_however_many_are_in_flight() -> None:
    assert restricted_mean([(1.0, True)] * 3 + [(0.5, False), (0.9, False), (1.0, False)]) == pytest.approx(
        1.0
    )


def test_without_an_end_there_is_no_mean() -> None:
    assert ServiceTime().mean([_under_way(0, 0.0)], 2.0) == 0.0


def test_the_queue_of_a_probe_does_not_hide_itself() -> None:
    times = ServiceTime()
    times.add([record(i, scheduled=0, end=S // 10) for i in range(30)], 1.0)
    queued = [record(i, scheduled=0, end=S) for i in range(30)]
    assert times.mean(queued, 2.0) == pytest.approx(0.1)
    assert ServiceTime().mean(queued, 2.0) == pytest.approx(1.0)
