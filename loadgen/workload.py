"""Seeded request bodies: same seed and index, same bytes, whatever was asked before.

Prompts are slices of one long text of short common words (about a token each with usual vocabularies),
opened by the request's own number so that no two share a prefix unless asked to. Nothing is downloaded
and no tokenizer is needed; true counts come back in the server's ``usage``.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from loadgen.lengths import Lengths

PATHS = {
    "chat": "/v1/chat/completions",
    "completions": "/v1/completions",
    "embeddings": "/v1/embeddings",
    "images": "/v1/images/generations",
}
_WORDS = """
time year people way day man thing woman life child world school state family student
group country problem hand part place case week company system program question work
government number night point home water room mother area money story fact month lot right
study book eye job word business issue side kind head house service friend father power
hour game line
""".split()  # noqa: SIM905  # readable as text
_TEXT_WORDS = 16_384


@dataclass(frozen=True, slots=True)
class Item:
    """One row of a data set: the user's text (or messages) and the output length, where given."""

    messages: Sequence[dict[str, Any]]
    output_tokens: int | None = None


class Workload:
    """Bodies of requests by index."""

    def __init__(
        self,
        endpoint: str,
        model: str,
        lengths: Lengths,
        *,
        seed: int = 0,
        prefix_share: float = 0.0,
        items: Sequence[Item] = (),
        stream: bool = True,
        exact: bool = True,
    ) -> None:
        """``exact`` asks for exactly the output length (``ignore_eos``, known to vLLM and SGLang)."""
        self.endpoint = endpoint
        self.streamed = stream and endpoint in {"chat", "completions"}
        self._model = model
        self._lengths = lengths
        self._seed = seed
        self._prefix_share = prefix_share
        self._items = items
        self._exact = exact
        words = random.Random(f"{seed} text").choices(_WORDS, k=_TEXT_WORDS)
        self._text = " ".join(words)
        self._starts = [0]
        for word in words:
            self._starts.append(self._starts[-1] + len(word) + 1)

    def body(self, index: int) -> bytes:
        """The JSON body of request ``index``."""
        rng = random.Random(f"{self._seed} {index}")
        asked, answer = self._lengths.of(index, rng)
        if self._items:
            item = self._items[rng.randrange(len(self._items))]
            return msgspec.json.encode(self._from_item(item, item.output_tokens or answer))
        return msgspec.json.encode(self._from_text(self._prompt(index, asked, rng), answer))

    def _prompt(self, index: int, tokens: int, rng: random.Random) -> str:
        shared = round(tokens * self._prefix_share)
        own = max(0, tokens - shared - 1)
        parts = (self._words(0, shared), str(index), self._words(rng.randrange(_TEXT_WORDS), own))
        return " ".join(part for part in parts if part)

    def _words(self, start: int, count: int) -> str:
        found = []
        while count > 0:
            end = min(start + count, _TEXT_WORDS)
            found.append(self._text[self._starts[start] : self._starts[end] - 1])
            count -= end - start
            start = 0
        return " ".join(found)

    def _from_text(self, prompt: str, answer: int) -> dict[str, Any]:
        if self.endpoint == "chat":
            return self._from_item(Item([{"role": "user", "content": prompt}]), answer)
        if self.endpoint == "completions":
            return self._generation({"prompt": prompt}, answer)
        if self.endpoint == "images":
            return {"model": self._model, "prompt": prompt, "n": 1, "response_format": "b64_json"}
        return {"model": self._model, "input": prompt}

    def _from_item(self, item: Item, answer: int) -> dict[str, Any]:
        if self.endpoint == "chat":
            return self._generation({"messages": list(item.messages)}, answer)
        text = "\n".join(str(message["content"]) for message in item.messages)
        return self._from_text(text, answer)

    def _generation(self, body: dict[str, Any], answer: int) -> dict[str, Any]:
        body = {"model": self._model} | body | {"max_tokens": answer, "temperature": 0}
        if self._exact:
            body |= {"ignore_eos": True}
        if self.streamed:
            body |= {"stream": True, "stream_options": {"include_usage": True}}
        return body
