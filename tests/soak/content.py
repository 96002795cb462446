"""The expected bytes of every response, made from its seed alone, by the backend and by the checker."""

import random
from dataclasses import dataclass

import msgspec

MODEL = "soak"
ERROR = b'{"error":{"message":"told to fail","type":"server_error","param":null,"code":500}}'


@dataclass(frozen=True, slots=True)
class Asked:
    """One request's response, given by ``seed``. ``usage``: whether its client requested usage itself."""

    seed: int
    stream: bool
    usage: bool = False

    @property
    def body(self) -> bytes:
        """The request."""
        fields: dict[str, object] = {
            "model": MODEL,
            "seed": self.seed,
            "messages": [],
            "user": f"u{self.seed % 7}",
        }
        if self.stream:
            fields["stream"] = True
        if self.usage:
            fields["stream_options"] = {"include_usage": True}
        return msgspec.json.encode(fields)


def blob(seed: int, size: int) -> bytes:
    """Bytes of no pattern."""
    return random.Random(seed).randbytes(size)


def events(seed: int) -> list[bytes]:
    """Return a stream's events, including the usage chunk."""
    rng = random.Random(seed)
    count = rng.randint(3, 40)
    made = [
        _event(choices=[_choice(blob(rng.randrange(1 << 30), rng.randint(1, 400)).hex())])
        for _ in range(count)
    ]
    usage = {"prompt_tokens": 7, "completion_tokens": count, "total_tokens": 7 + count}
    return [*made, _event(choices=[], usage=usage), b"data: [DONE]\n\n"]


def streamed(asked: Asked) -> bytes:
    """Return the stream that the client must receive: without a usage chunk that it did not request."""
    made = events(asked.seed)
    return b"".join(made if asked.usage else made[:-2] + made[-1:])


def whole(seed: int) -> bytes:
    """Return a JSON response."""
    rng = random.Random(seed)
    text = blob(seed, rng.randint(10, 20_000)).hex()
    usage = {"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12}
    return msgspec.json.encode({"id": "x", "choices": [{"message": {"content": text}}], "usage": usage})


def large(seed: int) -> bytes:
    """Return a response that does not fit into the sockets' buffers."""
    return blob(seed, 600_000 + seed % 1_000_000)


def _choice(text: str) -> dict[str, object]:
    return {"index": 0, "delta": {"content": text}, "finish_reason": None}


def _event(**fields: object) -> bytes:
    return b"data: " + msgspec.json.encode({"id": "x", "model": MODEL, **fields}) + b"\n\n"
