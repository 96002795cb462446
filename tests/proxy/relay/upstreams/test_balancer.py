"""Which backend takes a request."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.config import Backend, RelayConfig
from proxy.relay.upstreams.balancer import Balancer, Slot
from proxy.relay.upstreams.sticky import hash_of
from proxy.units import NS_PER_SECOND as S

CONFIG = RelayConfig()


def balancer(*models: tuple[str, ...], config: RelayConfig = CONFIG) -> Balancer:
    """Backends named a, b, c, ...; each with the models its configuration names."""
    names = [(chr(ord("a") + n), wanted) for n, wanted in enumerate(models)]
    return Balancer([Backend(f"http://{name}", name, models=wanted) for name, wanted in names], config, 0)


def name(slot: Slot | None) -> str | None:
    return None if slot is None else slot.backend.name


def eject(made: Balancer, slot: Slot, now_ns: int = 0) -> None:
    for _ in range(CONFIG.eject_failures):
        made.record_failure(slot, now_ns, "refused")


def test_the_fewest_outstanding_takes_it() -> None:
    made = balancer((), (), ())
    made.slots[0].outstanding, made.slots[1].outstanding = 2, 1
    assert [name(made.acquire(None, 0)) for _ in range(6)] == ["c", "b", "c", "a", "b", "c"]
    made.release(made.slots[0])
    assert name(made.acquire(None, 0)) == "a"


def test_equals_take_turns() -> None:
    made = balancer((), (), ())
    order = []
    for _ in range(6):
        slot = made.acquire(None, 0)
        assert slot is not None
        order.append(name(slot))
        made.release(slot)
    assert order == ["a", "b", "c"] * 2


def test_configured_models_are_kept_to() -> None:
    made = balancer(("m",), ("m", "n"))
    assert [name(made.acquire("n", 0)) for _ in range(2)] == ["b", "b"]
    assert name(made.acquire("m", 0)) == "a"
    assert made.acquire("o", 0) is None
    refusal = made.refusal("o", 0)
    assert (refusal.status, refusal.code, refusal.retry_seconds) == (404, "model_not_found", None)


def test_learnt_models_guide_and_never_forbid() -> None:
    made = balancer((), ())
    a, b = made.slots
    made.set_models(a, {"m": b"{}"})
    made.set_models(b, {"n": b"{}"})
    assert [name(made.acquire("n", 0)) for _ in range(2)] == ["b", "b"]
    assert name(made.acquire("adapter loaded later", 0)) == "a", "no one lists it: anyone may know it"
    eject(made, b)
    assert made.acquire("n", 0) is None, "the one that has it is out: the other has not"
    assert made.refusal("n", 0).status == 503


def test_lists_that_differ_are_told_as_one() -> None:
    made = balancer((), ("n",))
    found = [made.listing]  # what one serves is not known, and the other lists all that is
    made.set_models(made.slots[0], {"m": b'{"id":"m","x":1}', "n": b'{"id":"n"}'})
    found.append(made.listing)
    made.set_models(made.slots[0], {"n": b'{"id":"n"}'})
    found.append(made.listing)
    assert found == [None, b'{"object":"list","data":[{"id":"m","x":1},{"id":"n"}]}', None]


def test_a_configured_list_overrides_a_learnt_one() -> None:
    made = balancer(("m",), ())
    made.set_models(made.slots[0], {"n": b"{}"})
    assert set(made.slots[0].models) == {"m"}


def test_an_ejected_backend_is_left_out_then_probed_once() -> None:
    made = balancer((), ())
    a, b = made.slots
    eject(made, a)
    assert {name(made.acquire(None, 0)) for _ in range(4)} == {"b"}
    assert [name(made.acquire(None, S)) for _ in range(3)] == ["a", "b", "b"]
    made.record_status(a, 200, S)
    assert a.health.state == "up"
    assert b.health.state == "up"


def test_one_that_answers_with_errors_is_left_out_while_another_is_there() -> None:
    made = balancer((), ())
    a, b = made.slots
    for status in (500, 503, 200, 502, 429, 500, 504):  # whatever is no server's error is an answer
        assert not made.record_status(a, status, 0)
    assert made.record_status(a, 500, 0)
    assert a.health.reason == "it answers with 500"
    for _ in range(5):
        assert not made.record_status(b, 500, 0)
    assert {name(made.acquire(None, 0)) for _ in range(4)} == {"b"}
    assert name(made.acquire(None, S)) == "a"
    made.record_status(a, 500, S)
    assert {name(made.acquire(None, 2 * S)) for _ in range(4)} == {"b"}, "its probe failed: twice as long"


def test_one_whose_models_no_other_has_answers_for_itself() -> None:
    made = balancer(("m",), ("n",), ("n", "o"))
    for _ in range(5):
        assert not made.record_status(made.slots[0], 500, 0)
    assert [made.record_status(made.slots[1], 500, 0) for _ in range(3)] == [False, False, True]


def test_one_that_comes_back_gets_its_share_little_by_little() -> None:
    made = balancer((), (), config=replace(CONFIG, slow_start_seconds=10.0))
    a, b = made.slots
    eject(made, a)
    made.record_status(a, 200, 0)

    def share(t_ns: int) -> float:
        a.outstanding = b.outstanding = 0
        return Counter(name(made.acquire(None, t_ns)) for _ in range(100))["a"] / 100

    early, middle, late = share(S), share(5 * S), share(10 * S)
    assert 0.05 < early < 0.15
    assert 0.28 < middle < 0.38, "half a weight beside a whole one"
    assert late == 0.5


def test_when_none_is_left_it_says_when_to_come_again() -> None:
    made = balancer((), ())
    for slot in made.slots:
        eject(made, slot, 0)
    for _ in range(3):  # a's probes fail: 8 s
        made.record_failure(made.slots[0], 0, "refused")
    eject(made, made.slots[1], 4 * S + 1)  # b's probe and two more: 8 s, later
    assert made.acquire(None, 5 * S) is None
    assert made.refusal(None, 5 * S).retry_seconds == 3
    assert made.refusal(None, 8 * S - 1).retry_seconds == 1


def test_the_only_backend_is_always_tried() -> None:
    made = balancer(("m",))
    eject(made, made.slots[0])
    slot = made.acquire("other", 0)
    assert slot is made.slots[0]
    assert made.acquire("other", 0, tried=[slot]) is None


def test_those_that_were_tried_are_passed_over() -> None:
    made = balancer((), ())
    a, b = made.slots
    assert made.acquire(None, 0, tried=[a]) is b
    assert made.acquire(None, 0, 7, tried=[b]) is a
    assert made.acquire(None, 0, tried=[a, b]) is None


def test_a_key_stays_with_its_backend_while_that_has_room() -> None:
    made = balancer((), (), ())
    home: dict[int, str | None] = {}
    for key in map(hash_of, (f"session {n}".encode() for n in range(300))):
        slot = made.acquire(None, 0, key)
        assert slot is not None
        home[key] = name(slot)
        made.release(slot)
    assert min(Counter(home.values()).values()) > 60
    for key, where in home.items():
        slot = made.acquire(None, 0, key)
        assert name(slot) == where
        if slot is not None:
            made.release(slot)
    gone = made.slots[0]
    eject(made, gone)
    for key, where in home.items():
        slot = made.acquire(None, 0, key)
        assert slot is not None
        made.release(slot)
        assert name(slot) != "a"
        assert where in {"a", name(slot)}, "only the keys of the lost one move"


@given(keys=st.lists(st.integers(0, 3), min_size=1, max_size=60), ends=st.lists(st.booleans(), min_size=60))
@settings(max_examples=60, deadline=None)
def test_a_hot_key_loads_none_beyond_the_bound(keys: Sequence[int], ends: Sequence[bool]) -> None:
    made, factor = balancer((), (), (), ()), CONFIG.sticky_load_factor
    running: list[Slot] = []
    for key, end in zip(keys, ends, strict=False):
        slot = made.acquire(None, 0, hash_of(bytes([key])))
        assert slot is not None
        running.append(slot)
        assert slot.outstanding <= 1 + factor * len(running) / 4
        if end:
            made.release(running.pop(0))


def test_one_that_starts_slowly_is_bound_to_less_of_what_is_sticky() -> None:
    made = balancer((), ())
    a, _ = made.slots
    eject(made, a)
    made.record_status(a, 200, 0)
    for key in range(100):
        made.acquire(None, 5 * S, hash_of(bytes([key])))
    assert a.outstanding <= 1 + CONFIG.sticky_load_factor * 100 / 3


def test_new_settings_keep_what_is_known_of_backends_that_stay() -> None:
    made = balancer((), ("m",))
    a, b = made.slots
    eject(made, a)
    b.outstanding = 1
    same, changed = Backend("http://a", "renamed"), Backend("http://b", "b", models=("n",))
    gone = made.reconfigure([same, Backend("http://c", "c")], CONFIG, 0)
    assert gone == [b]
    assert made.slots[0] is a
    assert (a.backend.name, a.health.state) == ("renamed", "ejected")
    assert made.slots[1].health.weight(0) == 0.1, "a new one starts slowly"
    assert made.reconfigure([same, changed], CONFIG, 0)[0].backend.name == "c"
    assert set(made.slots[1].models) == {"n"}
    assert name(made.acquire("n", 0)) == "b"
