from pathlib import Path

import pytest

from loadgen.datasets import Item, read_dataset

SHARE = '{"id": "x", "conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]}'
CHAT = '{"messages": [{"role": "user", "content": "hi"}], "max_completion_tokens": 9}'
BATCH = '{"custom_id": "1", "method": "POST", "body": {"prompt": "p", "max_tokens": 4}}'


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "data.jsonl"
    path.write_text(text)
    return path


def test_the_known_shapes(tmp_path: Path) -> None:
    wanted = (
        Item([{"role": "user", "content": "a"}]),
        Item([{"role": "user", "content": "hi"}], 9),
        Item([{"role": "user", "content": "p"}], 4),
    )
    assert read_dataset(written(tmp_path, f"{SHARE}\n\n{CHAT}\n{BATCH}\n")) == wanted
    assert read_dataset(written(tmp_path, f"[{SHARE},\n{CHAT},{BATCH}]")) == wanted


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "no rows"),
        (f"{CHAT}\n{{", "line 2"),
        (f"{CHAT}\n{{}}", "neither messages"),
        ('{"messages": 3}', "messages"),
        (f'{CHAT}\n{{"messages": [{{"role": "user", "content": ["plain"]}}]}}', "line 2: message 1: content"),
        ('{"messages": [{"role": "user", "content": 7}]}', "content must be"),
        ('[{"prompt": ""}]', "row 1"),
        ("[{", "data.jsonl"),
        ('{"conversations": [{"from": "bot", "value": "x"}]}', "from 'bot'"),
        ('{"conversations": [{"from": "gpt", "value": "x"}]}', "human turn"),
    ],
)
def test_what_is_wrong_is_said_with_its_line(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        read_dataset(written(tmp_path, text))


def test_a_missing_file() -> None:
    with pytest.raises(ValueError, match=r"--dataset /nowhere\.jsonl: No such file"):
        read_dataset(Path("/nowhere.jsonl"))
