import msgspec
import pytest

from loadgen.energy.accounts import (
    ClockPair,
    conservation_note,
    decode_clock,
    decode_requests,
    decode_window,
    join,
    totals,
)
from loadgen.results.records import EnergyTotals
from proxy.schema import DeviceAccount, Gap, Parts, RequestEnergy
from tests.loadgen.samples import record


def account(**changes: object) -> DeviceAccount:
    made = DeviceAccount(
        device="GPU-0", source="nvml", measured_joules=100.0, requests_joules=60.0,
        idle_joules=30.0, unattributed_joules=10.0, start_ns=0, end_ns=2_000_000_000,
    )  # fmt: skip
    return msgspec.structs.replace(made, **changes)


def energy(name: str, joules: float = 4.0, **changes: object) -> RequestEnergy:
    made = RequestEnergy(request_id=name, joules=joules, final=True, parts=Parts(static=1.0, decode=3.0))
    return msgspec.structs.replace(made, **changes)


def test_a_local_duration_is_added_to_the_proxys_clock() -> None:
    assert ClockPair(5_000, 100).proxy_at(175) == 5_075


def test_bodies_of_the_admin_port() -> None:
    one = msgspec.json.encode([account()])
    assert decode_window(one) == decode_window(b'{"devices":' + one + b"}") == [account()]
    many = msgspec.json.encode([energy("a")])
    assert decode_requests(many) == decode_requests(b'{"requests":' + many + b"}")
    assert decode_clock(b'{"now_ns": 3}') == decode_clock(b'{"monotonic_ns": 3}') == 3
    with pytest.raises(ValueError, match="now_ns"):
        decode_clock(b"{}")


def test_records_are_joined_by_id_and_missing_ones_noted() -> None:
    records, notes = join([record(0), record(1)], [energy("r-0", final=False, output_tokens=7)])
    assert (records[0].joules, records[0].output_tokens) == (4.0, 7)
    assert records[1].joules is None
    assert [note.split()[0] for note in notes] == ["1", "1"]


def test_parts_sum_to_the_total() -> None:
    records, _ = join([record(0), record(1)], [energy("r-0"), energy("r-1")])
    found = totals([account(open_joules=5.0)], records)
    assert isinstance(found, EnergyTotals)
    assert found.joules == 105
    assert sum(value or 0.0 for value in found.parts.values()) == pytest.approx(105, rel=1e-12)
    assert found.parts["decode"] == pytest.approx(45)
    assert found.parts["idle"] == 30
    assert "not yet attributed" in found.notes[0]


def test_unknown_is_a_reason_not_zero() -> None:
    assert "no devices" in str(totals([], []))
    assert "driver gone" in str(totals([account(gaps=(Gap(0, 1, "driver gone"),))], []))
    assert "empty" in str(totals([account(end_ns=0)], []))
    found = totals([account()], [])
    assert isinstance(found, EnergyTotals)
    assert found.parts["decode"] is None
    assert "no parts" in found.notes[0]


def test_accounts_that_do_not_conserve_are_named() -> None:
    found = totals([account(idle_joules=20.0)], [])
    assert isinstance(found, EnergyTotals)
    assert "off by -10" in found.notes[0]


def test_conservation_of_records() -> None:
    records, _ = join([record(0)], [energy("r-0", joules=60.0)])
    assert conservation_note([account()], records) is None
    assert "other clients" in str(conservation_note([account(requests_joules=90.0)], records))
