import pytest

from loadgen.config.slo import parse_slo
from loadgen.measure.metrics import (
    distribution,
    gaps,
    inefficiency,
    judge,
    latencies,
    mean_gap,
    pacing,
    supported,
    tpot,
    ttft,
    wilson,
)
from loadgen.measure.window import Window
from loadgen.results.records import Record
from tests.loadgen.samples import record

MS = 1_000_000
ALL = Window(0, 10**12)


def test_ttft_is_from_scheduled_and_from_sent() -> None:
    one = record(0, scheduled=0, sent=40 * MS, first=90 * MS)
    assert ttft(one) == pytest.approx(0.09)
    assert ttft(one, from_sent=True) == pytest.approx(0.05)


def test_tpot_leaves_ttft_out_and_is_undefined_for_one_token() -> None:
    one = record(0, first=50 * MS, end=150 * MS, tokens=11)
    assert tpot(one) == pytest.approx(0.01)
    assert tpot(record(0, first=50 * MS, end=150 * MS, tokens=1)) is None


def test_tokens_of_one_read_make_no_zero_gaps() -> None:
    one = Record(point=0, index=0, id="a", scheduled_ns=0, dispatched_ns=0,
                 outputs_ns=[1 * MS, 3 * MS, 7 * MS], counts=[1, 4, 1])  # fmt: skip
    assert gaps(one) == pytest.approx([0.002, 0.004])
    assert mean_gap(one) == pytest.approx(0.003)


def test_a_percentile_the_sample_cannot_support_is_null() -> None:
    assert supported(99, 100)
    assert not supported(99, 99)
    few = distribution([0.1] * 19)
    assert (few.p90, few.p95, few.p99, few.max) == (0.1, None, None, 0.1)
    assert distribution([]).mean is None


def test_failures_count_against_the_slo() -> None:
    good = [record(i, scheduled=i, first=i + 10 * MS) for i in range(98)]
    bad = [record(98 + i, scheduled=98 + i, error="HTTP 500") for i in range(2)]
    judged = judge([*good, *bad], ALL, parse_slo("200ms"))
    assert judged is not None
    assert (judged.met, judged.good, judged.total) == (False, 98, 100)
    softer = judge([*good, *bad], ALL, parse_slo("p95:ttft=200ms"))
    assert softer is not None
    assert softer.met
    assert softer.confidence == "undecided"


def test_verdict_is_certain_with_enough_requests() -> None:
    many = [record(i, scheduled=i, first=i + 10 * MS) for i in range(1000)]
    passed = judge(many, ALL, parse_slo("200ms"))
    failed = judge(many, ALL, parse_slo("1ms"))
    assert passed is not None
    assert failed is not None
    assert (passed.confidence, failed.confidence) == ("pass", "fail")
    assert judge(many, ALL, ()) is None
    empty = judge([], ALL, parse_slo("1s"))
    assert empty is not None
    assert not empty.met


def test_correlated_values_weigh_less() -> None:
    import numpy as np

    rng = np.random.default_rng(0)
    alone = rng.random(2000) < 0.9
    runs = np.repeat(rng.random(100) < 0.9, 20)
    assert inefficiency(alone.astype(np.float64)) < 3
    assert inefficiency(runs.astype(np.float64)) > 5


def test_wilson_holds_the_share() -> None:
    low, high = wilson(0.95, 400)
    assert 0.92 < low < 0.95 < high < 0.97


def test_pacing_of_constant_sends() -> None:
    rate, cv = pacing([record(i, scheduled=i * 10 * MS, sent=i * 10 * MS) for i in range(11)])
    assert rate == pytest.approx(100)
    assert cv == pytest.approx(0)
    assert pacing([]) == (None, None)


def test_latencies_contain_every_metric() -> None:
    assert set(latencies(record(0))) == {"ttft", "tpot", "itl", "e2e"}
