import os
import resource
import shutil
import signal
from pathlib import Path

import msgspec
import pytest

from proxy.config import ConfigError
from proxy.exporters.base import Finished
from proxy.exporters.store import KEPT_FILES, LedgerStore
from proxy.schema import decode_request, encode
from tests.fakes.finished import RECORD, finished


def test_the_ledger_file_begins_on_a_fresh_line_after_a_crash(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    path.write_bytes(b'{"request_id": "to')
    store = LedgerStore(path)
    store.export(finished())
    store.close()
    torn, line = path.read_bytes().splitlines()
    assert torn == b'{"request_id": "to'
    assert decode_request(line) == RECORD


def test_a_ledger_that_cannot_be_written_is_a_setting_that_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be written"):
        LedgerStore(tmp_path / "nowhere" / "l")


def lines(path: Path) -> list[str]:
    return [decode_request(line).request_id for line in path.read_bytes().splitlines()]


def record(name: str) -> Finished:
    return finished(msgspec.structs.replace(RECORD, request_id=name))


def test_a_file_beyond_its_bound_is_numbered_and_the_oldest_goes(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    size = len(encode(RECORD)) + 1
    store = LedgerStore(path, max_bytes=2 * size)
    for number in range(15):
        store.export(record(chr(ord("a") + number)))
    store.close()
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        "ledger.jsonl",
        *(f"ledger.jsonl.{number}" for number in range(1, KEPT_FILES + 1)),
    ]
    assert lines(path) == ["o"]
    assert lines(tmp_path / "ledger.jsonl.1") == ["m", "n"]
    assert lines(tmp_path / f"ledger.jsonl.{KEPT_FILES}") == ["e", "f"]


def test_a_file_moved_away_is_made_anew(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    store = LedgerStore(path)
    store.export(record("a"))
    path.rename(tmp_path / "moved")
    store.export(record("b"))
    path.unlink()
    store.export(record("c"))
    store.close()
    assert (lines(tmp_path / "moved"), lines(path)) == (["a"], ["c"])


def test_a_full_disk_is_an_error_of_that_record() -> None:
    store = LedgerStore(Path("/dev/full"))
    with pytest.raises(OSError, match="No space left"):
        store.export(record("a"))
    store.close()


def test_after_a_line_that_was_not_written_whole_the_next_starts_afresh(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    store = LedgerStore(path)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
        with pytest.raises(OSError, match="only 100 of"):
            store.export(record("torn"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)
    store.export(record("whole"))
    store.close()
    torn, whole = path.read_bytes().splitlines()
    assert len(torn) == 100
    assert decode_request(whole).request_id == "whole"


def test_a_file_that_cannot_be_moved_grows_on_and_the_older_stay(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    size = len(encode(RECORD)) + 1
    store = LedgerStore(path, max_bytes=2 * size)
    for name in "abcd":
        store.export(record(name))
    (tmp_path / "ledger.jsonl.0").mkdir()
    for name in "efg":
        store.export(record(name))
    assert (lines(path), lines(tmp_path / "ledger.jsonl.1")) == (["c", "d", "e", "f", "g"], ["a", "b"])
    (tmp_path / "ledger.jsonl.0").rmdir()
    for name in "hi":
        store.export(record(name))
    assert (lines(path), lines(tmp_path / "ledger.jsonl.2")) == (["i"], ["a", "b"])
    store.close()


def test_a_folder_that_is_gone_is_an_error_of_that_record_and_harms_no_other_file(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    store = LedgerStore(folder / "ledger.jsonl")
    shutil.rmtree(folder)
    others = []
    for _ in range(3):
        with pytest.raises(FileNotFoundError):
            store.export(record("a"))
        others.append(os.pipe())
    for reader, writer in others:
        assert os.write(writer, b"x") == 1
        os.close(reader)
        os.close(writer)
    folder.mkdir()
    store.export(record("b"))
    store.close()
    assert lines(folder / "ledger.jsonl") == ["b"]
