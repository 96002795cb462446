from pathlib import Path

import msgspec
import pytest

from loadgen.results.records import INTERRUPTED, Record, Run
from loadgen.results.run_directory import keep, load, resumable
from tests.loadgen.samples import point, record


def run(verdict: str = "interrupted", **spec: object) -> Run:
    return Run(
        run_id="r", spec={"command": "sweep", "search": False, **spec}, seed=0, versions={},
        verdict=verdict, best=None, points=[point(1), point(2, notes=[INTERRUPTED])],  # type: ignore[arg-type]
    )  # fmt: skip


def requests() -> list[Record]:
    return [msgspec.structs.replace(record(i), point=i % 2) for i in range(6)]


def test_a_saved_run_loads_unchanged(tmp_path: Path) -> None:
    keep(tmp_path / "new" / "dir", run(), requests())
    assert load(tmp_path / "new" / "dir") == (run(), requests())
    assert sorted(p.name for p in (tmp_path / "new" / "dir").iterdir()) == ["requests.jsonl.zst", "run.json"]


def test_an_interrupted_point_is_measured_again(tmp_path: Path) -> None:
    keep(tmp_path, run(), requests())
    found, records = resumable(tmp_path)
    assert [p.concurrency for p in found.points] == [1]
    assert {r.point for r in records} == {0}


@pytest.mark.parametrize("made", [run("pass"), run(command="run"), run(search=True)])
def test_a_complete_run_cannot_be_resumed(made: Run, tmp_path: Path) -> None:
    keep(tmp_path, made, [])
    with pytest.raises(ValueError, match="--resume"):
        resumable(tmp_path)


def test_malformed_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="give a run directory"):
        load(tmp_path)
    keep(tmp_path, run(), requests())
    (tmp_path / "requests.jsonl.zst").write_bytes(b"not zstd")
    with pytest.raises(ValueError, match=r"requests\.jsonl\.zst"):
        load(tmp_path)
    (tmp_path / "run.json").write_bytes(b'{"schema": 1}')
    with pytest.raises(ValueError, match="run_id"):
        load(tmp_path)
