from pathlib import Path

import msgspec
import pytest

from proxy.core.events import Arrive, Device, End, Event, Header, Output, Sample
from proxy.explain import causes, compare, describe, load, run, totals
from proxy.schema import Parts, RequestEnergy, encode
from proxy.timeline_file import FileError, TimelineWriter
from proxy.units import NS_PER_SECOND

S = NS_PER_SECOND


def record(name: str, start_s: int = 0, joules: float | None = 12.0, **fields: object) -> RequestEnergy:
    made = RequestEnergy(
        request_id=name,
        model="m",
        start_unix_ns=start_s * S,
        duration_s=2.0,
        prompt_tokens=30,
        cached_tokens=10,
        output_tokens=10,
        joules=joules,
        parts=Parts(static=5.0, prefill=5.0, decode=1.5, context=0.5),
        source="nvml",
        final=True,
    )
    return msgspec.structs.replace(made, **fields)


def ledger(path: Path, *records: RequestEnergy, tail: bytes = b"") -> Path:
    path.write_bytes(b"".join(encode(one) + b"\n" for one in records) + tail)
    return path


def test_totals_are_over_what_is_wholly_known() -> None:
    total = totals([record("a"), record("b", 2), record("c", joules=None, unknown="no_samples")])
    assert total is not None
    assert (total.requests, total.joules, total.output_tokens, total.computed_tokens) == (2, 24.0, 20, 40)
    assert total.parts["static"] == 10.0
    assert total.at_once == 1.0
    assert totals([record("c", joules=None, unknown="no_samples")]) is None


def test_the_rows_of_a_comparison_add_up_to_the_difference() -> None:
    here = totals([record("a"), record("b")])
    alone = Parts(static=30.0, prefill=6.0, decode=1.5, context=0.5)
    there = totals([record("c", joules=38.0, parts=alone, prompt_tokens=40)])
    assert here is not None
    assert there is not None
    rows = causes(here, there)
    difference = here.per_token(here.joules) - there.per_token(there.joules)
    assert sum(row.here - row.there for row in rows) == pytest.approx(difference, rel=1e-12)
    by_name = {row.name: row for row in rows}
    assert by_name["static"].why.startswith("2 requests at once, there 1")
    # 2 computed tokens an output token here, 3 there, at 0.2 J and 0.25 J each: fewer, and dearer.
    assert "-0.2 by their number, +0.1 by their price" in by_name["prefill"].why


def test_parts_that_only_one_run_knows_are_one_row_of_the_comparison() -> None:
    hidden = Parts(static=None, prefill=5.0, decode=None, context=0.5, unseparated=6.5)
    here, there = totals([record("a")]), totals([record("b", parts=hidden)])
    assert here is not None
    assert there is not None
    assert "static" not in there.parts
    assert there.parts["unseparated"] == 6.5
    rows = {row.name: (row.here, row.there) for row in causes(here, there)}
    assert rows["unseparated"] == pytest.approx((0.65, 0.65))
    assert "static" not in rows


def test_a_ledger_is_described_and_says_what_is_unknown(tmp_path: Path) -> None:
    path = ledger(
        tmp_path / "l",
        record("a"),
        record("b", model="other", joules=99.0),
        record("c", joules=None, unknown="no_samples"),
    )
    text = "\n".join(describe(load(path, "steps")))
    assert "l: 3 requests, energy source nvml" in text
    assert "known: 1 no_samples" in text
    assert "by model:" in text
    assert text.index("b   ") < text.index("a   "), "the dearest first"


def test_a_torn_line_is_passed_over_and_a_foreign_one_refused(tmp_path: Path) -> None:
    torn = load(
        ledger(tmp_path / "torn", record("a"), tail=b'{"request_id": "to\n' + encode(record("b"))), "steps"
    )
    assert ([r.request_id for r in torn.records], torn.torn) == (["a", "b"], 2)
    with pytest.raises(FileError, match=r"foreign:2: not a record: .*request_id"):
        load(ledger(tmp_path / "foreign", record("a"), tail=b'{"request": 1}\n'), "steps")


def timeline(path: Path) -> Path:
    events: list[Event] = [Header(1, (Device("gpu0", source="nvml-simulated"),))]
    events += [Sample(n * S // 10, "gpu0", n * 10_000.0, source="nvml-simulated") for n in range(1, 100)]
    events += [
        Arrive(2 * S, "a", model="m", devices=("gpu0",)),
        Output(3 * S, "a", 5),
        End(4 * S, "a", 200, False, 7, 0, 5),
    ]
    with TimelineWriter(path) as writer:
        writer.write([events[0], *sorted(events[1:], key=lambda event: event.t_ns or 0)])
    return path


@pytest.mark.parametrize("name", ["t.jsonl", "t.jsonl.zst"])
def test_a_timeline_is_attributed_and_has_its_devices(tmp_path: Path, name: str) -> None:
    found = load(timeline(tmp_path / name), "overlap")
    (only,) = found.records
    assert only.joules == pytest.approx(200.0, rel=1e-9)
    assert (only.model, only.duration_s, only.output_tokens) == ("m", 2.0, 5)
    text = "\n".join(describe(found))
    assert "energy source nvml-simulated" in text
    assert "gpu0: 980 J measured = requests 200 + idle 780 + unattributed 0" in text
    assert "knows no parts" in text


def test_terms_that_a_constant_batch_cannot_tell_apart_are_named(tmp_path: Path) -> None:
    events: list[Event] = [Header(1, (Device("gpu0"),)), Sample(0, "gpu0", 0.0)]
    events.append(Arrive(0, "a", devices=("gpu0",), model="m"))
    for step in range(1, 1501):
        events.append(Output(step * S // 50, "a", 1))
        if step % 5 == 0:
            events.append(Sample(step * S // 50, "gpu0", 6_000.0 * step))
    events.append(End(30 * S, "a", 200, False, 100, 0, 1500))
    with TimelineWriter(tmp_path / "t") as writer:
        writer.write(events)
    text = "\n".join(describe(load(tmp_path / "t", "steps")))
    assert "fitted terms of gpu0,m:" in text
    assert "decode" in text.partition("varied too little to tell ")[2].partition("\n")[0]
    assert "fitted terms" not in "\n".join(describe(load(tmp_path / "t", "tokens")))


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one, two = ledger(tmp_path / "one", record("a")), ledger(tmp_path / "two", record("b", joules=24.0))
    assert run(one, two, "steps") == 0
    assert "one takes 1.2 J/output token, two 2.4: -1.2 (-50.0 %)" in capsys.readouterr().out
    assert run(tmp_path / "absent", None, "steps") == 2
    assert capsys.readouterr().err == f"{tmp_path / 'absent'}: No such file or directory\n"
    (tmp_path / "text").write_text("hello\n")
    assert run(tmp_path / "text", None, "steps") == 2
    assert capsys.readouterr().err.startswith(f"{tmp_path / 'text'}:1: ")


def test_what_cannot_be_compared_says_so(tmp_path: Path) -> None:
    known = load(ledger(tmp_path / "known", record("a")), "steps")
    unknown = load(ledger(tmp_path / "unknown", record("b", joules=None, unknown="no_samples")), "steps")
    assert next(compare(known, unknown)).startswith("not comparable")
    assert "nothing to explain" in "\n".join(describe(unknown))
