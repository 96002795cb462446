# Compiled by mypyc: see setup.py.
"""Seeded request bodies: the same seed and index give the same bytes, in any order of calls.

Prompts are slices of one long text of short common words (about one token each with usual vocabularies). Each
begins with the number of its request, so that no two share a prefix unless ``--prefix-share`` is given.
Nothing is downloaded and no tokenizer is needed; the true counts are in the server's ``usage``.
"""

import bisect
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from loadgen.workload.datasets import Item
from loadgen.workload.images import data_url
from loadgen.workload.lengths import Lengths
from loadgen.workload.tokenizer import Tokenizer

PATHS = {
    "chat": "/v1/chat/completions",
    "completions": "/v1/completions",
    "embeddings": "/v1/embeddings",
    "images": "/v1/images/generations",
    "videos": "/v1/videos",
}
_WORDS = """
time year people way day man thing woman life child world school state family student
group country problem hand part place case week company system program question work
government number night point home water room mother area money story fact month lot right
study book eye job word business issue side kind head house service friend father power
hour game line
""".split()  # noqa: SIM905  # readable as text
_TEXT_WORDS = 16_384
_STRIDE = 10_125  # odd: visits all positions of the text, each far from the one before
_MARK, _NUMBER = "@prompt@", 987_654_321  # placeholders of prompt and length in a body template
_BOUNDARY = "----loadgen-7d1f0c7e9b"
JSON = "application/json"


@dataclass(frozen=True, slots=True)
class Style:
    """Properties of requests other than their lengths.

    ``exact`` requests exactly the output length (``ignore_eos`` of vLLM, SGLang and llama.cpp). ``turns`` >
    1: conversations that grow turn by turn, ``sessions`` of them interleaved; the assistant's earlier turns
    are generated with the output length, so that real responses need not be kept. ``picture`` adds an image
    of that size to each chat request; on image and video endpoints it is the size of the output.
    """

    stream: bool = True
    exact: bool = True
    prefix_share: float = 0.0
    turns: int = 1
    sessions: int = 32
    picture: tuple[int, int] | None = None


def seed_of(seed: int, index: int) -> int:
    """Return the random seed of request ``index``, from which its lengths are drawn first."""
    return seed << 64 | index


class Workload:
    """Request bodies by index."""

    def __init__(
        self,
        endpoint: str,
        model: str,
        lengths: Lengths,
        *,
        seed: int = 0,
        items: Sequence[Item] = (),
        style: Style | None = None,
        tokenizer: Tokenizer | None = None,
    ) -> None:
        """Draw ``items`` of a data set with replacement; without a tokenizer, count a word as a token."""
        style = style or Style()
        self.endpoint = endpoint
        self.streamed = style.stream and endpoint in {"chat", "completions"}
        self.content_type = f"multipart/form-data; boundary={_BOUNDARY}" if endpoint == "videos" else JSON
        self._model = model
        self._lengths = lengths
        self._seed = seed
        self._items = items
        self._style = style
        self._rng = random.Random()
        words = random.Random(f"{seed} text").choices(_WORDS, k=_TEXT_WORDS)
        self._text = " ".join(words).encode()
        self._starts = [0]
        for word in words:
            self._starts.append(self._starts[-1] + len(word) + 1)
        self._tokens = None if tokenizer is None else tokenizer.running(words)
        self._first = seed % _TEXT_WORDS
        self._parts: tuple[bytes, bytes, bytes] | None = None
        if endpoint in {"chat", "completions"} and not items and style.turns == 1 and not style.picture:
            form = msgspec.json.encode(self._from_text(_MARK, _NUMBER, self._rng))
            before, _, after = form.rpartition(_MARK.encode())
            between, _, after = after.partition(b"%d" % _NUMBER)
            self._parts = before, between, after

    def body(self, index: int) -> bytes:
        """Return the body of request ``index``: JSON, or a multipart form for videos."""
        rng = self._rng
        if self._lengths.drawn or self._parts is None:
            rng.seed(
                seed_of(self._seed, index)
            )  # reseeded: a new generator would cost most of the time of a body
        prompt_tokens, output_tokens = self._lengths.of(index, rng)
        place = (self._first + index * _STRIDE) % _TEXT_WORDS
        if self._parts is not None:
            before, between, after = self._parts
            prompt = self._prompt(str(index), prompt_tokens, place)
            return b"%b%b%b%d%b" % (before, prompt, between, output_tokens, after)
        if self._items:
            item = self._items[rng.randrange(len(self._items))]
            fields = self._from_item(item, item.output_tokens or output_tokens, rng)
        elif self._style.turns > 1:
            fields = self._from_item(Item(self._session(index)), output_tokens, rng)
        else:
            text = self._prompt(str(index), prompt_tokens, place).decode()
            fields = self._from_text(text, output_tokens, rng)
        return _form(fields) if self.endpoint == "videos" else msgspec.json.encode(fields)

    def _session(self, index: int) -> list[dict[str, Any]]:
        """Return the messages of turn ``index // sessions % turns`` of one of the interleaved sessions."""
        sessions, turns = self._style.sessions, self._style.turns
        lap, place = divmod(index, sessions)
        name, turn = (lap // turns) * sessions + place, lap % turns
        rng = random.Random(f"{self._seed} session {name}")
        found: list[dict[str, Any]] = []
        for at in range(turn + 1):
            prompt_tokens, output_tokens = self._lengths.of(index, rng)
            prompt = self._prompt(f"{name}.{at}", prompt_tokens, rng.randrange(_TEXT_WORDS))
            found.append({"role": "user", "content": prompt.decode()})
            reply = self._words(rng.randrange(_TEXT_WORDS), output_tokens)
            found.append({"role": "assistant", "content": reply.decode()})
        return found[:-1]

    def _prompt(self, name: str, tokens: int, place: int) -> bytes:
        shared = round(tokens * self._style.prefix_share) if self._style.prefix_share else 0
        own = max(0, tokens - shared - 1)
        parts = [name.encode()]
        if shared:
            parts.insert(0, self._words(0, shared))
        if own:
            parts.append(self._words(place, own))
        return b" ".join(parts)

    def _words(self, start: int, count: int) -> bytes:
        found = []
        tokens = self._tokens
        while count > 0:
            if tokens is None:
                end = min(start + count, _TEXT_WORDS)
                count -= end - start
            else:
                end = min(bisect.bisect_right(tokens, tokens[start] + count) - 1, _TEXT_WORDS)
                end = max(end, start + 1)
                count -= tokens[end] - tokens[start]
            found.append(self._text[self._starts[start] : self._starts[end] - 1])
            start = end % _TEXT_WORDS
        return b" ".join(found)

    def _from_text(self, prompt: str, answer: int, rng: random.Random) -> dict[str, Any]:
        if self.endpoint == "chat":
            return self._from_item(Item([{"role": "user", "content": prompt}]), answer, rng)
        if self.endpoint == "completions":
            return self._generation({"prompt": prompt}, answer)
        if self.endpoint == "embeddings":
            return {"model": self._model, "input": prompt}
        size = {"size": "{}x{}".format(*self._style.picture)} if self._style.picture else {}
        if self.endpoint == "videos":
            return {"model": self._model, "prompt": prompt} | size
        return {"model": self._model, "prompt": prompt, "n": 1, "response_format": "b64_json"} | size

    def _from_item(self, item: Item, answer: int, rng: random.Random) -> dict[str, Any]:
        messages = list(item.messages)
        if self.endpoint == "chat":
            if self._style.picture:
                messages[-1] = _with_picture(messages[-1], data_url(*self._style.picture, rng))
            return self._generation({"messages": messages}, answer)
        return self._from_text("\n".join(_text_of(message) for message in messages), answer, rng)

    def _generation(self, body: dict[str, Any], answer: int) -> dict[str, Any]:
        body = {"model": self._model} | body | {"max_tokens": answer, "temperature": 0}
        if self._style.exact:
            body |= {"ignore_eos": True}
        if self.streamed:
            body |= {"stream": True, "stream_options": {"include_usage": True}}
        return body


def _with_picture(message: dict[str, Any], url: str) -> dict[str, Any]:
    content = message.get("content") or ""
    parts = [{"type": "text", "text": content}] if isinstance(content, str) else list(content)
    return message | {"content": [*parts, {"type": "image_url", "image_url": {"url": url}}]}


def _text_of(message: dict[str, Any]) -> str:
    content = message.get("content") or ""
    if isinstance(content, str):
        return content
    return "\n".join(part.get("text", "") for part in content)


def _form(fields: dict[str, Any]) -> bytes:
    parts = (
        f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
        for name, value in fields.items()
    )
    return ("".join(parts) + f"--{_BOUNDARY}--\r\n").encode()
