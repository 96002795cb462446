import gzip
from pathlib import Path

import msgspec
import pytest

from proxy.core.events import Arrive, Device, End, Event, Header, Output, Sample
from proxy.explain import causes, compare, describe, load, run, totals
from proxy.schema import Parts, RequestEnergy, encode
from proxy.timeline_file import FileError, TimelineWriter
from proxy.units import NS_PER_SECOND
from proxy.zstd import compress

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


A, B, TORN = encode(record("a")) + b"\n", encode(record("b")) + b"\n", b'{"request_id": "to'


@pytest.mark.parametrize(
    ("data", "ids", "noted"),
    [
        (A + B, "ab", []),
        (b"\n" + A + B, "ab", []),
        (b"\n\r\n \n" + A, "a", []),
        (TORN + b"\n" + A + B, "ab", [1]),
        (A + TORN + b"\n" + B, "ab", [2]),
        (A + B + TORN, "ab", [3]),
        (b"x" * 40 + b"\n" + b"\xff\xfe\xc0\n3\nnull\n" + A, "a", [1, 2, 3, 4]),
        (A + b'{"request": 1}\n' + B, "ab", [2]),
        (b"\xef\xbb\xbf" + A.replace(b"\n", b"\r\n") + B, "ab", []),
    ],
)
def test_lines_of_a_ledger_that_cannot_be_read_are_passed_over_and_named(
    tmp_path: Path, data: bytes, ids: str, noted: list[int]
) -> None:
    for name, packed in (
        ("l", data),
        ("l.zst", compress(data)),
        ("l.gz", gzip.compress(data)),
        ("z", compress(data)),
    ):
        (tmp_path / name).write_bytes(packed)
        run = load(tmp_path / name, "steps")
        assert "".join(r.request_id for r in run.records) == ids
        assert [int(note.split(":")[1]) for note in run.notes] == noted


def test_many_lines_that_cannot_be_read_are_counted(tmp_path: Path) -> None:
    (tmp_path / "l").write_bytes(A + b"{\n" * 1000)
    notes = load(tmp_path / "l", "steps").notes
    assert len(notes) == 6
    assert notes[-1] == "l: 1000 lines were skipped in total"


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "l:1: no whole header"),
        (b"\n\n", "l:1: no whole header"),
        (b'{"request_id": 3}\n', "no line is a complete record: .*request_id"),
        (b"hello\n", "l:1: not JSON"),
        (A.decode().encode("utf-16"), "UTF-16"),
        (b"\x1f\x8b\x08" + bytes(40), "not gzip, or damaged"),
        (b"\x28\xb5\x2f\xfd" + b"x" * 40, "not zstd, or damaged"),
    ],
)
def test_a_file_of_which_nothing_can_be_read_is_refused(tmp_path: Path, data: bytes, reason: str) -> None:
    (tmp_path / "l").write_bytes(data)
    with pytest.raises(FileError, match=reason):
        load(tmp_path / "l", "steps")


def test_what_is_not_known_is_never_shown_as_zero(tmp_path: Path) -> None:
    path = ledger(
        tmp_path / "l",
        record("a", prompt_tokens=None, cached_tokens=None),
        record("b", model="n", joules=None, unknown="no_samples", parts=None),
        record("c", joules=3.0, output_tokens=None),
    )
    run_ = load(path, "steps")
    text = "\n".join(describe(run_))
    assert "n                        unknown" in text
    assert "1 without output tokens: 3 J, not included below" in text
    assert "a                                  12 J  - prompt, 10 output tokens" in text
    total = totals(run_.records)
    assert total is not None
    assert (total.joules, total.computed_tokens) == (12.0, None)
    assert "the number of prompt tokens is unknown" in "\n".join(compare(run_, run_))
    cached = totals([record("a", cached_tokens=31)])
    assert cached is not None
    assert cached.computed_tokens is None


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
    assert "has no parts" in text


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
    assert "decode" in text.partition("varied too little to separate ")[2].partition("\n")[0]
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
