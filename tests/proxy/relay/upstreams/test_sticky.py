"""Keys of requests, and the ring."""

from collections import Counter

import pytest

from proxy.config import RelayConfig, Sticky
from proxy.relay.http.heads import RequestHead
from proxy.relay.upstreams.sticky import AffinityKeys, Ring, hash_of


def head(**values: str) -> RequestHead:
    named = {name.replace("_", "-").encode(): value.encode() for name, value in values.items()}
    return RequestHead(b"POST", b"/", [], named, True, True, None, None, False)


def key(sticky: Sticky, body: bytes | None, given: RequestHead | None = None) -> int | None:
    return AffinityKeys(RelayConfig(sticky=sticky, sticky_prefix_bytes=40)).key(given or head(), body)


def test_a_session_is_told_by_header_cache_key_or_user_in_this_order() -> None:
    both = b'{"user":"u","prompt_cache_key":"k","messages":[]}'
    assert key("session", both, head(x_session_id="s")) == hash_of(b"s")
    assert key("session", both) == hash_of(b'"k"')
    assert key("session", b'{"user":"u","prompt_cache_key":null}') == hash_of(b'"u"')
    assert key("session", b'{"user":17}') == hash_of(b"17")
    assert key("session", None, head(x_session_id="s")) == hash_of(b"s")


@pytest.mark.parametrize("body", [None, b"", b"{", b"[]", b"{}", b'{"user":""}', b'{"messages":null}'])
@pytest.mark.parametrize("sticky", ["session", "prefix", "off"])
def test_nothing_told_is_no_key(sticky: Sticky, body: bytes | None) -> None:
    assert key(sticky, body) is None


def test_a_prefix_is_the_model_and_the_first_bytes_of_the_messages() -> None:
    one = b'{"model":"m","messages":[{"role":"system","content":"Answer in rhymes."},{"a":1}]}'
    assert key("prefix", one) == key("prefix", one.replace(b'"a":1', b'"b":2'))
    assert key("prefix", one) != key("prefix", one.replace(b"system", b"user  "))
    assert key("prefix", one) != key("prefix", one.replace(b'"m"', b'"n"'))
    assert key("prefix", b'{"prompt":"x"}') != key("prefix", b'{"input":"y"}') is not None


def test_a_ring_is_walked_once_around_and_spreads_its_members() -> None:
    ring = Ring([(name, name) for name in "abcd"])
    for start in (0, 2**63, 2**64 - 1):
        walked = list(ring.walk(start))
        assert Counter(walked) == dict.fromkeys("abcd", 128)
    first = Counter(next(ring.walk(hash_of(b"%d" % n))) for n in range(2000))
    assert all(300 < count < 700 for count in first.values())


def test_a_member_that_leaves_moves_only_its_keys() -> None:
    before, after = Ring([(name, name) for name in "abcd"]), Ring([(name, name) for name in "abd"])
    for n in range(500):
        was, now = (next(ring.walk(hash_of(b"%d" % n))) for ring in (before, after))
        assert was in {now, "c"}
