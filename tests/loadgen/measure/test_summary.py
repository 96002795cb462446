import msgspec
import pytest

from loadgen.config.slo import parse_slo
from loadgen.measure.summary import Measured, summarize
from loadgen.measure.window import Window
from loadgen.results.records import EnergyTotals, Record
from tests.loadgen.samples import record

MS = 1_000_000
S = 1000 * MS


def steady() -> list[Record]:
    """Ten a second for ten seconds: 50 ms to the first of five tokens, 90 ms in all."""
    return [
        record(i, scheduled=i * 100 * MS, first=(i * 100 + 50) * MS, end=(i * 100 + 90) * MS, tokens=5)
        for i in range(100)
    ]


def test_rates_latencies_and_energy() -> None:
    energy = EnergyTotals(joules=2000.0, seconds=10.0, source="nvml", parts={"decode": 2000.0})
    point = summarize(
        Measured(None, 10.0, steady(), Window(0, 10 * S), energy=energy), parse_slo("p90:ttft=60ms")
    )
    assert point.requests_per_second == pytest.approx(10)
    assert point.goodput_per_second == pytest.approx(10)
    assert point.output_tokens_per_second == pytest.approx(50)
    assert point.ttft_seconds.p50 == pytest.approx(0.05)
    assert point.tpot_seconds.p50 == pytest.approx(0.01)
    assert point.watts == 200
    assert point.tokens_per_joule == pytest.approx(0.25)
    assert point.joules_per_request == pytest.approx(20)
    assert point.slo_met
    assert point.stable
    assert not point.generator_bound


def test_fields_of_unknown_energy_are_null() -> None:
    point = summarize(Measured(None, 10.0, steady(), Window(0, 10 * S)), ())
    assert (point.watts, point.joules, point.tokens_per_joule) == (None, None, None)
    assert (point.slo_met, point.goodput_per_second) == (None, None)


def test_failures_and_late_responses_are_no_goodput() -> None:
    some = steady()
    some[:20] = [msgspec.structs.replace(r, error="HTTP 500") for r in some[:20]]
    some[20:30] = [msgspec.structs.replace(r, first_ns=r.scheduled_ns + 80 * MS) for r in some[20:30]]
    point = summarize(Measured(None, 10.0, some, Window(0, 10 * S)), parse_slo("60ms"))
    assert point.goodput_per_second == pytest.approx(7)
    assert point.failed == 20
    assert point.slo_met is False
    assert "HTTP 500" in point.notes[-1]


def test_a_lagging_generator_is_reported() -> None:
    late = [msgspec.structs.replace(r, dispatched_ns=r.scheduled_ns + 30 * MS) for r in steady()]
    window = Window(0, 10 * S)
    assert summarize(Measured(None, 10.0, late, window), ()).generator_bound
    # A cap that binds is named as such: its wait is not the generator's slowness.
    capped = summarize(Measured(None, 10.0, late, window, capped=3), ())
    assert not capped.generator_bound
    assert "delayed requests 3 times" in capped.notes[-1]
    assert summarize(Measured(None, 10.0, steady(), window, lags_ns=[50 * MS] * 40), ()).generator_bound
    assert summarize(Measured(None, 10.0, steady(), window, cpu_share=1.0), ()).generator_bound
