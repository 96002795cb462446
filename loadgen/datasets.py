"""Own prompts: JSON lines (or one JSON array) in the shapes of ShareGPT and of OpenAI. Nothing is downloaded.

ShareGPT: ``{"conversations": [{"from": "human", "value": ...}, {"from": "gpt", "value": ...}, ...]}``; the
conversation up to its last human turn is sent. OpenAI: ``{"messages": [...]}`` or ``{"prompt": "..."}``,
with ``max_tokens`` (or ``max_completion_tokens``) if the answer's length matters, or a batch file's lines
with these under ``body``. Content parts (images as ``image_url``) pass as they are.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

_SHAPES = (
    'write {"messages": [...]}, {"prompt": "..."} (OpenAI) or {"conversations": [{"from", "value"}, ...]}'
    " (ShareGPT)"
)
_ROLES = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "system": "system"}


@dataclass(frozen=True, slots=True)
class Item:
    """One row of a data set: the messages to send, and the length of the answer where given."""

    messages: Sequence[dict[str, Any]]
    output_tokens: int | None = None


class _Said(msgspec.Struct):
    who: str = msgspec.field(name="from")
    value: str


class _Fields(msgspec.Struct):
    conversations: list[_Said] | None = None
    messages: list[dict[str, Any]] | None = None
    prompt: str | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None


class _Row(_Fields):
    body: _Fields | None = None


def read_dataset(path: Path) -> tuple[Item, ...]:
    """All rows; raises ``ValueError`` naming file, line and what would be right."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ValueError(f"--dataset {path}: {error.strerror}") from error
    rows = [(f"row {i}", raw) for i, raw in enumerate(_array(data, path), start=1)] or [
        (f"line {i}", line) for i, line in enumerate(data.splitlines(), start=1) if line.strip()
    ]
    if not rows:
        raise ValueError(f"--dataset {path}: no rows; {_SHAPES}")
    return tuple(_item(raw, f"{path} {where}") for where, raw in rows)


def _array(data: bytes, path: Path) -> list[bytes]:
    if not data.lstrip().startswith(b"["):
        return []
    try:
        return [bytes(raw) for raw in msgspec.json.decode(data, type=list[msgspec.Raw])]
    except msgspec.MsgspecError as error:
        raise ValueError(f"--dataset {path}: {error}") from error


def _item(raw: bytes, where: str) -> Item:
    try:
        row = msgspec.json.decode(raw, type=_Row)
    except msgspec.MsgspecError as error:
        raise ValueError(f"{where}: {error}; {_SHAPES}") from error
    fields = row.body or row
    length = fields.max_completion_tokens or fields.max_tokens
    if fields.messages:
        for number, message in enumerate(fields.messages, start=1):
            _check(message, f"{where}: message {number}")
        return Item(fields.messages, length)
    if fields.prompt:
        return Item([{"role": "user", "content": fields.prompt}], length)
    if fields.conversations:
        return Item(_conversation(fields.conversations, where), length)
    raise ValueError(f"{where}: neither messages, prompt nor conversations; {_SHAPES}")


def _check(message: dict[str, Any], where: str) -> None:
    """Refuse content that is neither text nor parts, before anything is sent."""
    content = message.get("content")
    if content is None or isinstance(content, str):
        return
    parts = content if isinstance(content, list) else [content]
    for part in parts:
        if not isinstance(part, dict) or not isinstance(part.get("text", ""), str):
            raise ValueError(
                f'{where}: content must be text or a list of parts as {{"type": "text", "text": ...}}'
            )


def _conversation(said: Sequence[_Said], where: str) -> list[dict[str, Any]]:
    unknown = next((one.who for one in said if one.who not in _ROLES), None)
    if unknown is not None:
        raise ValueError(f"{where}: from {unknown!r}; one of {', '.join(_ROLES)}")
    turns = [{"role": _ROLES[one.who], "content": one.value} for one in said]
    while turns and turns[-1]["role"] != "user":
        turns.pop()
    if not turns:
        raise ValueError(f"{where}: a conversation without a human turn")
    return turns
