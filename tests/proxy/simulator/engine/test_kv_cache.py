from proxy.simulator.engine.kv_cache import KvCache


def test_blocks_are_taken_and_given_back() -> None:
    cache = KvCache(4)
    assert cache.take(3)
    assert not cache.take(2)
    assert (cache.used, cache.room) == (3, 1)
    cache.give(2)
    assert cache.room == 3


def test_published_blocks_are_known_until_their_room_is_needed() -> None:
    cache = KvCache(4)
    cache.take(2)
    assert cache.publish(("a", "b")) == 2
    cache.release(("a", "b"))
    assert (cache.known(("a", "b", "c")), cache.used) == (2, 0)
    assert cache.take(3), "blocks in no use are room"
    assert cache.known(("a", "b")) == 1, "the end of a chain is forgotten before its beginning"


def test_shared_blocks_in_use_are_not_forgotten() -> None:
    cache = KvCache(4)
    cache.take(2)
    cache.publish(("a", "b"))
    cache.share(("a",))
    cache.release(("a", "b"))
    assert cache.known(("a", "b")) == 2
    assert not cache.take(4)
    assert cache.take(3)
    assert cache.known(("a", "b")) == 1
    cache.release(("a",))
    assert cache.room == 1


def test_a_block_computed_twice_stays_the_second_ones_own() -> None:
    cache = KvCache(4)
    cache.take(1)
    cache.publish(("a",))
    cache.take(2)
    assert cache.publish(("a", "b")) == 0
    assert cache.private == 2
