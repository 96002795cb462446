"""Data sets of the user: JSON lines (or one JSON array) in the formats of ShareGPT and OpenAI.

ShareGPT: ``{"conversations": [{"from": "human", "value": ...}, {"from": "gpt", "value": ...}, ...]}``; the
conversation up to its last human turn is sent. OpenAI: ``{"messages": [...]}`` or ``{"prompt": "..."}``,
optionally with ``max_tokens`` (or ``max_completion_tokens``), or the lines of a batch file with these under
``body``. Content parts (images as ``image_url``) are sent unchanged. Nothing is downloaded.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec

from loadgen.workload.row_reader import SkippedRows, json_rows, read_file
from proxy.api.lenient import LenientDecoder
from proxy.units import MAX_EXACT_INTEGER

_SHAPES: Final = (
    'write {"messages": [...]}, {"prompt": "..."} (OpenAI) or {"conversations": [{"from", "value"}, ...]}'
    " (ShareGPT)"
)
_ROLES: Final = {
    "human": "user", "user": "user", "system": "system",
    "gpt": "assistant", "assistant": "assistant", "chatgpt": "assistant", "bing": "assistant",
    "bard": "assistant", "model": "assistant",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Item:
    """One row of a data set: the messages to send, and the response length if given."""

    messages: Sequence[dict[str, Any]]
    output_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class DataSet:
    """The rows that can be sent, and notes about the others."""

    items: tuple[Item, ...]
    notes: tuple[str, ...] = ()


class _Turn(msgspec.Struct):
    who: str | None = msgspec.field(name="from", default=None)
    value: str | None = None


class _Fields(msgspec.Struct):
    conversations: list[_Turn] | None = None
    messages: list[msgspec.Raw] | None = None
    prompt: str | list[str] | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None


class _Row(_Fields):
    body: _Fields | None = None


_ROW: Final = LenientDecoder(_Row)


class _RowError(Exception):
    """A row cannot be used; the message is the reason."""


def read_dataset(path: Path, *, strict: bool = False) -> DataSet:
    """Read all rows that can be sent; skip and report the others, or reject them if ``strict``.

    Raises ``ValueError`` with option, file, row and the valid formats.
    """
    skipped = SkippedRows(f"--dataset {path}", strict)
    lengths = SkippedRows(f"--dataset {path}", strict, "response lengths not used")
    data = read_file(path, skipped.what)
    items = []
    for where, raw in json_rows(data, skipped):
        try:
            items.append(_item(raw, where, lengths))
        except _RowError as error:
            skipped.add(where, error)
    if not items:
        raise skipped.nothing(_SHAPES)
    skipped.read = len(items)
    lengths.read = len(items) - lengths.count
    return DataSet(tuple(items), skipped.notes() + lengths.notes())


def _item(raw: bytes, where: str, lengths: SkippedRows) -> Item:
    unread: list[str] = []
    row = _ROW.decode(raw, unread)
    if row is None:
        raise _RowError("not a JSON object")
    fields: _Fields = row.body or row
    messages = _messages(fields, [name.removeprefix("body.") for name in unread])
    return Item(messages, _length(fields, unread, where, lengths))


def _messages(fields: _Fields, unread: list[str]) -> list[dict[str, Any]]:
    """Return the messages of a row, from the first of its fields that can be used."""
    odd = next((name.partition(".")[0] for name in unread), None)
    if fields.messages and "messages" not in unread:
        return [_message(raw, number) for number, raw in enumerate(fields.messages, start=1)]
    prompts = [fields.prompt] if isinstance(fields.prompt, str) else fields.prompt or []
    if len(prompts) == 1 and prompts[0] and "prompt" not in unread:
        return [{"role": "user", "content": prompts[0]}]
    if fields.conversations and not any(name.startswith("conversations") for name in unread):
        return _conversation(fields.conversations)
    if len(prompts) > 1:
        raise _RowError("prompt is a list of several prompts")
    if odd in {"messages", "prompt", "conversations"}:
        raise _RowError(f"{odd} cannot be decoded")
    raise _RowError("neither messages, prompt nor conversations")


def _length(fields: _Fields, unread: list[str], where: str, lengths: SkippedRows) -> int | None:
    length = fields.max_completion_tokens or fields.max_tokens
    if any(name.endswith(("max_tokens", "max_completion_tokens")) for name in unread) and length is None:
        lengths.add(where, "max_tokens is not a whole number: --output applies")
    if length is not None and not 0 < length <= MAX_EXACT_INTEGER:
        lengths.add(where, f"max_tokens {length} is not a valid length: --output applies")
        return None
    return length


def _message(raw: msgspec.Raw, number: int) -> dict[str, Any]:
    """Return a message unchanged, except for what cannot be encoded as JSON."""
    message = _loose_json(bytes(raw))
    if not isinstance(message, dict):
        raise _RowError(f"message {number} is not an object")
    if not isinstance(message.get("role"), str):
        raise _RowError(f"message {number} has no role")
    content = message.get("content")
    if content is None or isinstance(content, str):
        return message
    parts = content if isinstance(content, list) else [content]
    for part in parts:
        if not isinstance(part, dict) or not isinstance(part.get("text", ""), str):
            right = 'text or a list of parts such as {"type": "text", "text": ...}'
            raise _RowError(f"message {number}: content must be {right}")
    return message


def _loose_json(raw: bytes) -> object:
    """Decode JSON leniently: NaN as null, unpaired surrogates and invalid UTF-8 as U+FFFD."""
    try:
        return msgspec.json.decode(raw)
    except (ValueError, RecursionError):
        pass
    try:
        return _sendable(
            json.loads(raw.decode("utf-8", "replace"), strict=False, parse_constant=lambda _: None)
        )
    except (ValueError, RecursionError):
        raise _RowError("a message is not JSON") from None


def _sendable(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, list):
        return [_sendable(item) for item in value]
    if isinstance(value, dict):
        return {_sendable(name): _sendable(item) for name, item in value.items()}
    return value


def _conversation(conversation: Sequence[_Turn]) -> list[dict[str, Any]]:
    turns = []
    for number, one in enumerate(conversation, start=1):
        role = _ROLES.get((one.who or "").strip().lower())
        if role is None:
            raise _RowError(f"turn {number} is from {one.who!r}; must be one of {', '.join(_ROLES)}")
        if one.value is None:
            raise _RowError(f"turn {number} has no value")
        turns.append({"role": role, "content": one.value})
    while turns and turns[-1]["role"] != "user":
        turns.pop()
    if not turns:
        raise _RowError("a conversation without a human turn")
    return turns
