# Compiled by mypyc: see setup.py.
"""Token counts in the terms of each provider, brought to one meaning.

``prompt`` is all tokens of the prompt, those read from a cache included; ``cached`` is how many of them were.

- Chat, completions: ``prompt_tokens`` includes ``prompt_tokens_details.cached_tokens``.
- Responses: ``input_tokens`` includes ``input_tokens_details.cached_tokens``.
- Messages (Anthropic, vLLM's ``/v1/messages``): ``input_tokens`` *excludes* ``cache_read_input_tokens`` and
  ``cache_creation_input_tokens``; the prompt is the sum of the three. ``message_start`` may give some of
  them and ``message_delta`` the others, so fields are merged before they are added.

A count that no record can hold, or that is impossible, is not known rather than wrong: a prompt of 0 tokens
is what servers send as a placeholder, before they know.
"""

from proxy.api.fields import Usage
from proxy.units import MAX_EXACT_INTEGER


def count_or_none(number: int | None) -> int | None:
    """Return a number of tokens; None for one that is negative or not exact in every reader of JSON."""
    return number if number is not None and 0 <= number <= MAX_EXACT_INTEGER else None


class TokenCounts:
    """Counts of one response, merged from all its usage objects; a field that is absent keeps its value."""

    __slots__ = ("_cache_created", "_cache_read", "_completion", "_details", "_input", "_prompt", "_total")

    def __init__(self) -> None:
        self._prompt: int | None = None
        self._input: int | None = None
        self._cache_read: int | None = None
        self._cache_created: int | None = None
        self._details: int | None = None
        self._completion: int | None = None
        self._total: int | None = None

    def update(self, usage: Usage, *, partial: bool = False) -> int | None:
        """Merge a usage object; return its number of output tokens.

        ``partial``: the response has just begun (``message_start``), its number of output tokens is no total.
        """
        self._prompt = _newer(usage.prompt_tokens, self._prompt)
        self._input = _newer(usage.input_tokens, self._input)
        self._cache_read = _newer(usage.cache_read_input_tokens, self._cache_read)
        self._cache_created = _newer(usage.cache_creation_input_tokens, self._cache_created)
        self._total = _newer(usage.total_tokens, self._total)
        details = usage.prompt_tokens_details or usage.input_tokens_details
        cached = details.cached_tokens if details is not None else None
        if cached is None:
            cached = usage.cached_tokens if usage.cached_tokens is not None else usage.prompt_cache_hit_tokens
        self._details = _newer(cached, self._details)
        output = count_or_none(usage.completion_tokens)
        if output is None:
            output = count_or_none(usage.output_tokens)
        if not partial and output is not None:
            self._completion = output
        return output

    @property
    def prompt(self) -> int | None:
        """All tokens of the prompt; None where not known."""
        prompt = self._prompt
        if prompt is None and self._input is not None:
            prompt = self._input + (self._cache_read or 0) + (self._cache_created or 0)
        if prompt is None and self._total is not None and self._completion is not None:
            prompt = max(self._total - self._completion, 0)
        return count_or_none(prompt or None)

    @property
    def cached(self) -> int | None:
        """Tokens of the prompt that were read from a cache; None where not known, or more than the prompt."""
        cached = self._details if self._details is not None else self._cache_read
        prompt = self.prompt
        return None if cached is not None and prompt is not None and cached > prompt else cached

    @property
    def output(self) -> int | None:
        """Output tokens; None where not known."""
        if self._completion is None and self._total is not None and self._prompt is not None:
            return count_or_none(self._total - self._prompt)
        return self._completion

    @property
    def total(self) -> int | None:
        """Tokens of prompt and output, as the server added them; rerankers report nothing else."""
        return self._total


def _newer(number: int | None, before: int | None) -> int | None:
    count = count_or_none(number)
    return before if count is None else count
