"""How much of a prompt was seen before, by hashes of its beginnings."""

import os

from proxy.relay.prefixes import PrefixTable

TEXT = os.urandom(100_000)


def test_a_prompt_that_grows_began_with_the_one_before() -> None:
    table = PrefixTable()
    assert table.longest("a", TEXT[:40_000]) == 0
    found = table.longest("a", TEXT[:40_000] + b"x" * 20_000)
    assert 40_000 * 15 // 16 <= found <= 40_000


def test_a_prompt_that_differs_at_its_beginning_has_no_prefix() -> None:
    table = PrefixTable()
    table.longest("a", TEXT)
    assert table.longest("a", b"x" + TEXT[1:]) == 0


def test_prompts_of_other_backends_or_models_are_others() -> None:
    table = PrefixTable()
    table.longest("a", TEXT)
    assert table.longest("b", TEXT) == 0


def test_a_short_prompt_is_not_remembered() -> None:
    table = PrefixTable()
    assert table.longest("a", b"hello") == 0
    assert len(table) == 0


def test_the_oldest_hashes_are_dropped_first() -> None:
    table = PrefixTable(hashes=8)
    old, new = TEXT[:2048], TEXT[4096:6144]
    table.longest("a", old)
    table.longest("a", new)
    assert len(table) == 8
    table.longest("a", old)  # used last
    table.longest("a", TEXT[8192:10_240])
    assert len(table) == 8
    assert table.longest("a", old) == 2048
    assert table.longest("a", new) == 0


def test_only_hashes_are_kept() -> None:
    table = PrefixTable()
    table.longest("a", b"secret " * 1000)
    assert all(len(kept) == 8 for kept in table._seen)
