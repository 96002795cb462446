import json
from pathlib import Path

import pytest

from proxy.cli import main
from proxy.core.events import Arrive, Device, End, Event, Header, Sample
from proxy.timeline_file import TimelineWriter
from proxy.units import NS_PER_SECOND

S = NS_PER_SECOND


def timeline(path: Path) -> Path:
    events: list[Event] = [Sample(i * S // 10, "gpu0", energy_mj=i * 30_000.0) for i in range(51)]
    events += [Arrive(S, "r1", devices=("gpu0",)), End(3 * S, "r1", 200)]
    events.sort(key=lambda event: event.t_ns or 0)
    with TimelineWriter(path) as writer:
        writer.write([Header(1, (Device("gpu0"),)), *events])
    return path


def test_lines_are_those_of_the_format_page(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    path = timeline(tmp_path / "t.jsonl.zst")
    assert main(["attribute", str(path), "--policy", "overlap", "--out", str(out)]) == 0
    request, device = [json.loads(line) for line in out.read_text().splitlines()][:2]
    assert request["joules"] == pytest.approx(600)
    assert list(request) == [
        "type",
        "request",
        "joules",
        "joules_low",
        "joules_high",
        "parts",
        "policy",
        "evidence",
        "cached_from",
        "devices",
        "unknown",
        "engines",
    ]
    assert list(device) == ["type", "device", "measured", "requests", "idle", "unattributed", "gaps"]
    assert device["measured"] == pytest.approx(
        device["requests"] + device["idle"] + device["unattributed"], rel=1e-9
    )
    assert [p.name for p in tmp_path.iterdir() if "tmp" in p.name] == []


def test_a_wrong_line_leaves_no_output(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text('{"type":"header","version":1}\n{"type":"wat"}\n')
    assert main(["attribute", str(path), "--out", str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err.startswith(f"{path}:2: Invalid value 'wat'")
    assert [p.name for p in tmp_path.iterdir()] == ["t.jsonl"]


def test_a_missing_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["attribute", str(tmp_path / "none")]) == 2
    assert capsys.readouterr().err == f"{tmp_path / 'none'}: No such file or directory\n"


def test_a_torn_last_line_is_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = timeline(tmp_path / "t.jsonl")
    path.write_bytes(path.read_bytes()[:-5])
    assert main(["attribute", str(path), "--policy", "overlap", "--out", str(tmp_path / "out")]) == 0
    assert f"{path}:54: the last line is incomplete and was ignored" in capsys.readouterr().err
