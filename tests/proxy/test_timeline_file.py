import gzip
from collections.abc import Callable
from pathlib import Path

import pytest

from proxy.core.events import Event, Header, Output
from proxy.core.timeline import TimelineReader, encode_events
from proxy.timeline_file import FileError, TimelineWriter, lines, read_blocks
from proxy.zstd import compress

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


def test_what_an_editor_or_a_compressor_made_of_a_file_is_read(tmp_path: Path) -> None:
    data = encode_events(EVENTS)
    marked = b"\xef\xbb\xbf" + data
    packed = {
        "plain": marked,
        "packed": compress(marked),
        "t.jsonl.zst": compress(data),
        "t.gz": gzip.compress(marked),
        "gzip": gzip.compress(data),
        "crlf": data.replace(b"\n", b"\r\n"),
    }
    for name, content in packed.items():
        (tmp_path / name).write_bytes(content)
        assert read(tmp_path / name) == (EVENTS, None), name


@pytest.mark.parametrize("pack", [compress, gzip.compress])
def test_a_compressed_file_that_was_cut_ends_where_it_was(
    tmp_path: Path, pack: Callable[[bytes], bytes]
) -> None:
    noise = b"".join(b"%d\n" % (n * 2654435761 % 2**32) for n in range(200_000))
    (tmp_path / "t").write_bytes(pack(noise)[:-1000])
    found = list(lines(tmp_path / "t"))
    assert 100_000 < len(found) < 200_000
    assert found[:-1] == noise.split(b"\n")[: len(found) - 1]


def test_a_file_in_utf16_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "t").write_bytes(encode_events(EVENTS).decode().encode("utf-16"))
    with pytest.raises(FileError, match=r"t: is UTF-16 text: save it as UTF-8"):
        read(tmp_path / "t")
