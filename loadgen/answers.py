"""Answers of an OpenAI-compatible server, piece by piece: when tokens came and how many.

Sans-I/O: the connection feeds bytes with the stamp of the read they came in, and asks for the outcome
at the end. Nothing of the text is kept.
"""

from typing import Final, Protocol

from loadgen.bodies import Choice, Usage, chunk_of, whole_of
from loadgen.lane import Lane, lane_of

_EMPTY_TOOLS: Final[tuple[bytes, ...]] = (b"", b"null", b"[]")


class Answer(Protocol):
    """What becomes of the body of a successful answer."""

    @property
    def first_ns(self) -> int | None:
        """When the first token came; None without one."""

    @property
    def outputs_ns(self) -> list[int]:
        """Of each read that carried tokens."""

    @property
    def counts(self) -> list[int]:
        """How many token chunks each of these carried."""

    @property
    def usage(self) -> Usage | None:
        """Token counts as the server reports them."""

    def feed(self, data: bytes, t_ns: int) -> None:
        """Take the next bytes of the body, read at ``t_ns``."""

    def lane(self, data: bytes) -> Lane | None:
        """A short way for reads like ``data``, a whole chunk that was fed last; None: there is none."""

    def outcome(self) -> str | None:
        """None for a whole answer, else what was wrong with it."""


class StreamAnswer:
    """Server-sent events; each ``data:`` line is one JSON object (as all known servers send them)."""

    __slots__ = ("_ended", "_error", "_rest", "counts", "first_ns", "outputs_ns", "usage")

    def __init__(self) -> None:
        self.first_ns: int | None = None
        self.outputs_ns: list[int] = []
        self.counts: list[int] = []
        self.usage: Usage | None = None
        self._rest = b""
        self._ended = False
        self._error: str | None = None

    def feed(self, data: bytes, t_ns: int) -> None:
        """Take bytes; every complete line in them is read at once."""
        lines = (self._rest + data if self._rest else data).split(b"\n")
        self._rest = lines.pop()
        for line in lines:
            if line.startswith(b"data:"):
                self._event(line[5:], t_ns)

    def _event(self, payload: bytes, t_ns: int) -> None:
        if payload.strip() == b"[DONE]":
            self._ended = True
            return
        try:
            chunk = chunk_of(payload)
        except ValueError as error:
            self._error = self._error or f"not a chunk of the API: {error}"
            return
        if chunk.usage is not None:
            self.usage = chunk.usage
        if chunk.error is not None:
            self._error = self._error or "the server reported an error within the stream"
        for choice in chunk.choices:
            if choice.finish_reason is not None:
                self._ended = True
            if _carries_token(choice):
                self._token(t_ns)

    def _token(self, t_ns: int) -> None:
        if self.outputs_ns and self.outputs_ns[-1] == t_ns:
            self.counts[-1] += 1
            return
        if self.first_ns is None:
            self.first_ns = t_ns
        self.outputs_ns.append(t_ns)
        self.counts.append(1)

    def lane(self, data: bytes) -> Lane | None:
        """For a read that brought one token, and left nothing to wait for."""
        if self._rest or not self.counts or self.counts[-1] != 1:
            return None
        return lane_of(data, self.outputs_ns, self.counts)

    def outcome(self) -> str | None:
        """A stream without a finish reason or ``[DONE]`` was cut, however cleanly it closed."""
        if self._error:
            return self._error
        return None if self._ended else "the stream ended without a finish reason or [DONE]"


def _carries_token(choice: Choice) -> bool:
    if choice.text:
        return True
    delta = choice.delta
    if delta is None:
        return False
    if delta.content is not None and delta.role is None:
        return True  # vLLM sends special tokens as chunks of empty content
    if delta.content or delta.reasoning_content or delta.reasoning:
        return True
    return bytes(delta.tool_calls) not in _EMPTY_TOOLS


class WholeAnswer:
    """One JSON object: no first token can be seen, so ``first_ns`` stays None."""

    __slots__ = ("_pieces", "counts", "first_ns", "items", "outputs_ns", "usage")

    def __init__(self) -> None:
        self.first_ns: int | None = None
        self.outputs_ns: list[int] = []
        self.counts: list[int] = []
        self.usage: Usage | None = None
        self.items: int | None = None
        self._pieces: list[bytes] = []

    def feed(self, data: bytes, t_ns: int) -> None:
        """Gather the body."""
        del t_ns
        self._pieces.append(data)

    def lane(self, data: bytes) -> None:
        """There is nothing to count."""

    def outcome(self) -> str | None:
        """Read the body for usage and the number of items; it is forgotten afterwards."""
        try:
            whole = whole_of(b"".join(self._pieces))
        except ValueError as error:
            return f"not an answer of the API: {error}"
        finally:
            self._pieces.clear()
        self.usage = whole.usage
        self.items = None if whole.data is None else len(whole.data)
        if whole.error is not None:
            return "the server reported an error with status 200"
        return None
