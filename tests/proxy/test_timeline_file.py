from pathlib import Path

import pytest

from proxy.core.events import Event, Header, Output
from proxy.core.timeline import TimelineReader
from proxy.timeline_file import FileError, TimelineWriter, read_blocks

EVENTS: list[Event] = [Header(1), *(Output(i, f"r{i}", i) for i in range(1000))]


def read(path: Path) -> tuple[list[Event], int | None]:
    reader = TimelineReader()
    return [event for block in read_blocks(path, reader) for event in block], reader.torn


@pytest.mark.parametrize("name", ["t.jsonl", "t.jsonl.zst"])
def test_a_file_is_read_as_written(tmp_path: Path, name: str) -> None:
    with TimelineWriter(tmp_path / name) as writer:
        writer.write(EVENTS[:10])
        writer.flush()
        writer.write(EVENTS[10:])
    writer.close()
    assert read(tmp_path / name) == (EVENTS, None)


@pytest.mark.parametrize("name", ["t.jsonl", "t.jsonl.zst"])
def test_what_was_flushed_survives_a_crash(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    with TimelineWriter(path) as writer:
        writer.write(EVENTS[:10])
        writer.flush()
        crashed = path.read_bytes()
    path.write_bytes(crashed)
    assert read(path) == (EVENTS[:10], None)


def test_a_file_that_is_not_zstd(tmp_path: Path) -> None:
    path = tmp_path / "t.zst"
    path.write_bytes(b"hello, hello, hello")
    with pytest.raises(FileError, match=r"t\.zst: not zstd"):
        read(path)
