import gzip
from pathlib import Path

import msgspec
import pytest

from loadgen.workload.datasets import DataSet, Item, read_dataset

SHARE = '{"id": "x", "conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]}'
CHAT = '{"messages": [{"role": "user", "content": "hi"}], "max_completion_tokens": 9}'
BATCH = '{"custom_id": "1", "method": "POST", "body": {"prompt": "p", "max_tokens": 4}}'


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "data.jsonl"
    path.write_text(text)
    return path


def test_the_documented_formats_are_read(tmp_path: Path) -> None:
    wanted = (
        Item([{"role": "user", "content": "a"}]),
        Item([{"role": "user", "content": "hi"}], 9),
        Item([{"role": "user", "content": "p"}], 4),
    )
    for text in (f"{SHARE}\n\n{CHAT}\n{BATCH}\n", f"[{SHARE},\n{CHAT},{BATCH}]"):
        for data in (
            text.encode(),
            text.encode("utf-8-sig"),
            text.encode("utf-16"),
            gzip.compress(text.encode()),
        ):
            path = tmp_path / "data"
            path.write_bytes(data)
            assert read_dataset(path) == DataSet(wanted)


@pytest.mark.parametrize(
    "row",
    [
        '{"prompt": "a", "score": NaN}',
        '{"prompt": ["a"]}',
        '{"prompt": "a", "messages": null, "max_tokens": null}',
        '{"messages": 3, "prompt": "a"}',
        '{"messages": [{"role": "user", "content": "a"}], "id": "\\ud83d"}',
        '{"messages": [{"role": "user", "content": "a"}], "prompt": {}}',
        '{"conversations": [{"from": "Human", "value": "a", "x": NaN}, {"from": "bing", "value": "b"}]}',
        '{"body": {"prompt": "a"}, "prompt": "b"}',
    ],
)
def test_malformed_fields_beside_the_prompt_are_ignored(tmp_path: Path, row: str) -> None:
    wanted = DataSet((Item([{"role": "user", "content": "a"}]),))
    assert read_dataset(written(tmp_path, row + "\r\n")) == wanted


def test_text_that_cannot_be_encoded_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "data"
    path.write_bytes(
        b'{"prompt": "\xff"}\n{"prompt": "\\ud83d"}\n'
        b'{"messages": [{"role": "user", "content": "\\ud83d", "x": NaN}]}\n'
    )
    items = read_dataset(path).items
    assert [item.messages[0]["content"] for item in items] == ["\ufffd"] * 3
    assert items[2].messages[0]["x"] is None
    msgspec.json.encode([item.messages for item in items])


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("{", "not a JSON object"),
        ("{}", "neither messages"),
        ('{"messages": 3}', "messages cannot be decoded"),
        ('{"messages": [{"role": "user", "content": ["plain"]}]}', "message 1: content"),
        ('{"messages": [{"role": "user", "content": 7}]}', "message 1: content must be"),
        ('{"messages": [{"content": "x"}]}', "message 1 has no role"),
        ('{"messages": ["x"]}', "message 1 is not an object"),
        ('{"prompt": ""}', "neither messages"),
        ('{"prompt": ["a", "b"]}', "prompt is a list of several"),
        ('{"conversations": [{"from": "bot", "value": "x"}]}', "turn 1 is from 'bot'"),
        ('{"conversations": [{"from": "gpt", "value": "x"}]}', "human turn"),
        ('{"conversations": [{"from": "human"}]}', "turn 1 has no value"),
        ('{"conversations": [7, {"from": "human", "value": "x"}]}', "conversations cannot be decoded"),
        ('{"conversations": []}', "neither messages"),
    ],
)
def test_an_invalid_row_is_skipped_and_reported_by_line(tmp_path: Path, row: str, reason: str) -> None:
    path = written(tmp_path, f"{CHAT}\n\n{row}\n{CHAT}\n")
    found = read_dataset(path)
    assert len(found.items) == 2
    (note,) = found.notes
    assert f"--dataset {path}: 1 of 3 rows left out: line 3: " in note
    assert reason in note
    with pytest.raises(ValueError, match=r"--dataset .*: line 3: .*\(--strict\)"):
        read_dataset(path, strict=True)
    with pytest.raises(ValueError, match=r"--dataset .*: no row can be read: line 1: "):
        read_dataset(written(tmp_path, row))


def test_a_truncated_array_keeps_its_first_rows(tmp_path: Path) -> None:
    found = read_dataset(written(tmp_path, f"[{CHAT}, {SHARE}, "))
    assert len(found.items) == 2
    assert "row 3: the array is truncated here" in found.notes[0]


@pytest.mark.parametrize("length", ['"many"', "0", "-1", "7.5", "1e30"])
def test_an_invalid_length_is_unknown(tmp_path: Path, length: str) -> None:
    found = read_dataset(written(tmp_path, f'{CHAT}\n{{"prompt": "a", "max_tokens": {length}}}'))
    assert [item.output_tokens for item in found.items] == [9, None]
    assert "1 of 2 response lengths not used: line 2: " in found.notes[0]


def test_files_without_rows_and_missing_files(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"--dataset .*: no rows"):
        read_dataset(written(tmp_path, "\n\n"))
    with pytest.raises(ValueError, match=r"--dataset /nowhere\.jsonl: No such file"):
        read_dataset(Path("/nowhere.jsonl"))
