"""Usage of every provider has one meaning: all of the prompt, how much of it was cached, the output."""

from typing import Any

import msgspec
import pytest

from proxy.api.fields import Usage
from proxy.api.usage import TokenCounts


def counts(*usages: dict[str, Any]) -> tuple[int | None, int | None, int | None]:
    found = TokenCounts()
    for usage in usages:
        found.update(msgspec.convert(usage, Usage))
    return found.prompt, found.cached, found.output


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        (
            {"prompt_tokens": 9, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 4}},
            (9, 4, 3),
        ),
        ({"input_tokens": 9, "output_tokens": 3, "input_tokens_details": {"cached_tokens": 4}}, (9, 4, 3)),
        (
            {
                "input_tokens": 25,
                "output_tokens": 3,
                "cache_read_input_tokens": 2000,
                "cache_creation_input_tokens": 300,
            },
            (2325, 2000, 3),
        ),
        ({"input_tokens": 25, "output_tokens": 3, "cache_read_input_tokens": None}, (25, None, 3)),
        ({"prompt_tokens": 2025, "completion_tokens": 3, "cache_read_input_tokens": 2000}, (2025, 2000, 3)),
        ({"prompt_tokens": 9, "completion_tokens": 3, "prompt_cache_hit_tokens": 8}, (9, 8, 3)),
        ({"prompt_tokens": 9, "completion_tokens": 3, "cached_tokens": 8}, (9, 8, 3)),
        ({"prompt_tokens": 9, "total_tokens": 12}, (9, None, 3)),
        ({"completion_tokens": 3, "total_tokens": 12}, (9, None, 3)),
        ({"total_tokens": 12}, (None, None, None)),
        ({}, (None, None, None)),
        ({"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}, (None, None, 0)),
        ({"prompt_tokens": -3, "completion_tokens": 2**60}, (None, None, None)),
        ({"prompt_tokens": 9, "prompt_tokens_details": {"cached_tokens": 10}}, (9, None, None)),
    ],
)
def test_terms_of_providers(
    usage: dict[str, Any], expected: tuple[int | None, int | None, int | None]
) -> None:
    assert counts(usage) == expected


def test_parts_of_a_prompt_may_come_in_different_events() -> None:
    start = {"input_tokens": 25, "cache_read_input_tokens": 2000, "cache_creation_input_tokens": 300}
    assert counts(start, {"output_tokens": 7}) == (2325, 2000, 7)
    assert counts(
        {"input_tokens": 0}, {"input_tokens": 25, "cache_read_input_tokens": 5, "output_tokens": 7}
    ) == (30, 5, 7)


def test_a_count_at_the_start_is_no_total() -> None:
    found = TokenCounts()
    found.update(Usage(input_tokens=7, output_tokens=1), partial=True)
    assert (found.prompt, found.output) == (7, None)
