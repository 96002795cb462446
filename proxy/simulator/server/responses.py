"""Answers as vLLM v0.32 sends them, byte by byte; only ids, times, words and fingerprint are ours."""

from array import array
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from proxy.simulator.engine.batching import BLOCK
from proxy.simulator.engine.job import Job

WORDS: Final = (" joule", " watt", " token", " batch", " prompt", " cache", " kernel", " counter")
FINGERPRINT: Final = "simulated"
DONE: Final = b"data: [DONE]\n\n"
_NULLS: Final = {"prompt_token_ids": None, "prompt_text": None}


@dataclass(frozen=True, slots=True)
class Head:
    """Leading fields of every object of a response.

    Attributes:
        id: Id without its prefix.
        choices: Number of choices of each prompt, one after the other.
    """

    id: str
    created: int
    model: str
    chat: bool
    choices: int = 1

    @property
    def public(self) -> str:
        """The id with its prefix."""
        return f"{'chatcmpl' if self.chat else 'cmpl'}-{self.id}"

    def fields(self, *, chunk: bool = False) -> dict[str, Any]:
        """Return the leading fields as a dictionary."""
        kind = ("chat.completion.chunk" if chunk else "chat.completion") if self.chat else "text_completion"
        return {"id": self.public, "object": kind, "created": self.created, "model": self.model}


def text(tokens: int) -> str:
    """Return a text of ``tokens`` tokens, a word each."""
    rounds, rest = divmod(tokens, len(WORDS))
    return "".join(WORDS) * rounds + "".join(WORDS[:rest])


def words(tokens: int) -> list[str]:
    """Return the words of this text, as a prompt that contains it is tokenized."""
    return text(tokens).split()


def usage(prompts: Sequence[Job], emitted: int, *, details: bool = True) -> dict[str, Any]:
    """Tokens of an answer, from one job of each prompt."""
    prompt = sum(job.prompt_tokens for job in prompts)
    cached = sum(job.cached_tokens for job in prompts)
    created = sum(len(job.chain) for job in prompts) * BLOCK - cached
    known = {"cached_tokens": cached, "created_cache_tokens": max(created, 0)}
    plain = {"prompt_tokens": prompt, "total_tokens": prompt + emitted, "completion_tokens": emitted}
    return {**plain, "prompt_tokens_details": known} if details else plain


def complete_body(head: Head, jobs: Sequence[Job], reason: str) -> bytes:
    """Return the body of a non-streamed response."""
    emitted = sum(job.emitted for job in jobs)
    counts = usage(jobs[:: head.choices], emitted)
    counts["prompt_tokens_details"] |= {"multimodal_tokens": None}
    counts["completion_tokens_details"] = None
    body = head.fields() | {
        "choices": [_choice(head, index, job, reason) for index, job in enumerate(jobs)],
        "service_tier": None,
        "system_fingerprint": FINGERPRINT,
        "usage": counts,
    }
    if head.chat:
        body |= {"prompt_logprobs": None, **_NULLS}
    return msgspec.json.encode(
        body | {"kv_transfer_params": None, "ec_transfer_params": None, "metrics": None}
    )


def _choice(head: Head, index: int, job: Job, reason: str) -> dict[str, Any]:
    end = {"logprobs": None, "finish_reason": reason, "stop_reason": None, "token_ids": None}
    if not head.chat:
        rest = {"prompt_logprobs": None, "prompt_token_ids": None, "routed_experts": None}
        return {"index": index, "text": text(job.emitted), **end, **rest}
    message = {"role": "assistant", "content": text(job.emitted), "refusal": None, "annotations": None}
    message |= {"audio": None, "function_call": None, "reasoning": None}
    return {"index": index, "message": message, **end, "routed_experts": None}


class Stream:
    """The events of one streamed answer, of several choices perhaps."""

    def __init__(
        self, head: Head, jobs: Sequence[Job], reason: str, *, continuous: bool, final: bool
    ) -> None:
        self._head = head.fields(chunk=True)
        self._chat = head.chat
        self._prompts = jobs[:: head.choices]
        self._reason = reason
        self._continuous = continuous
        self._final = final
        self._emitted = [0] * len(jobs)
        self._ready = [self._templates(index) for index in range(len(jobs))]

    def first(self) -> bytes:
        """Return the events before the first token: of chat, the role of each choice."""
        if not self._chat:
            return b""
        events = []
        for index in range(len(self._emitted)):
            delta = {"role": "assistant", "content": ""}
            choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": None}
            events.append(_event(self._head | {"choices": [choice]} | self._counts(0) | _NULLS))
        return b"".join(events)

    def token(self, index: int, *, more: bool, count: int = 1) -> bytes:
        """One token of a choice, or several that one step made: they come in one event."""
        number = self._emitted[index]
        self._emitted[index] = number + count
        if more and not self._continuous and count == 1:
            return self._ready[index][number % len(WORDS)]
        text = "".join(WORDS[(number + each) % len(WORDS)] for each in range(count))
        made = self._chunk(index, text, None if more else self._reason)
        if not more and not self._final:
            made |= {"system_fingerprint": FINGERPRINT}
        return _event(made)

    def last(self) -> bytes:
        """Return the usage, if requested, and the end of the stream."""
        if not self._final:
            return DONE
        counts = usage(self._prompts, sum(self._emitted))
        return _event(
            self._head | {"choices": [], "usage": counts, "system_fingerprint": FINGERPRINT}
        ) + DONE  # fmt: skip

    def _templates(self, index: int) -> list[bytes]:
        """Return the event of each word, so that the hot path only looks them up."""
        if self._continuous:
            return []
        return [_event(self._chunk(index, word, None)) for word in WORDS]

    def _chunk(self, index: int, word: str, reason: str | None) -> dict[str, Any]:
        content = {"delta": {"content": word}} if self._chat else {"text": word}
        choice: dict[str, Any] = {"index": index, **content, "logprobs": None, "finish_reason": reason}
        if not self._chat:
            choice |= {"stop_reason": None, "prompt_token_ids": None}
        elif reason is not None:
            choice |= {"stop_reason": None}
        choice["token_ids"] = None
        return self._head | {"choices": [choice]} | self._counts(sum(self._emitted))

    def _counts(self, emitted: int) -> dict[str, Any]:
        if not self._continuous:
            return {}
        counts = usage(self._prompts, emitted, details=False)
        return {"usage": counts | {"completion_tokens_details": None}}


def _event(value: dict[str, Any]) -> bytes:
    return b"data: " + msgspec.json.encode(value) + b"\n\n"


def embeddings(head: Head, jobs: Sequence[Job], size: int, *, base64: bool) -> bytes:
    """Return the body of a response of embeddings: identical vectors of length 1, without meaning."""
    packed = array("f", [size**-0.5] * size)
    vector = b64encode(packed.tobytes()).decode() if base64 else packed.tolist()
    prompt = sum(job.prompt_tokens for job in jobs)
    data = [{"index": index, "object": "embedding", "embedding": vector} for index in range(len(jobs))]
    counts = {"prompt_tokens": prompt, "total_tokens": prompt, "completion_tokens": 0}
    body = {"id": f"embd-{head.id}", "object": "list", "created": head.created, "model": head.model}
    return msgspec.json.encode(body | {"data": data, "usage": counts | {"prompt_tokens_details": None}})


def models(model: str, created: int, longest: int | None) -> bytes:
    """Return the list of models, which has one entry."""
    permission = {
        "id": "modelperm-simulated",
        "object": "model_permission",
        "created": created,
        **dict.fromkeys(("allow_create_engine",), False),
        **dict.fromkeys(("allow_sampling", "allow_logprobs"), True),
        "allow_search_indices": False,
        "allow_view": True,
        "allow_fine_tuning": False,
        "organization": "*",
        "group": None,
        "is_blocking": False,
    }
    one = {"id": model, "object": "model", "created": created, "owned_by": "simulated", "root": model}
    one |= {"parent": None, "max_model_len": longest, "permission": [permission]}
    return msgspec.json.encode({"object": "list", "data": [one]})
