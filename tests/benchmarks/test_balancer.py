"""CPU time of selecting a backend, beside that of parsing a request's head."""

import itertools
import time
from collections.abc import Callable

import pytest

from proxy.config import Backend, RelayConfig, Sticky
from proxy.relay.http.heads import parse_request
from proxy.relay.upstreams.balancer import Balancer
from proxy.relay.upstreams.sticky import AffinityKeys

pytestmark = pytest.mark.bench

BODY = b'{"model":"m","messages":[{"role":"user","content":"%b"}],"user":"u1"}' % (b"word " * 200)
HEAD = (
    b"POST /v1/chat/completions HTTP/1.1\r\nHost: h\r\nAccept: */*\r\nUser-Agent: bench\r\n"
    b"Content-Type: application/json\r\nAuthorization: Bearer x\r\nContent-Length: %d\r\n\r\n" % len(BODY)
)
ROUNDS = 5_000


def microseconds(work: Callable[[], object]) -> float:
    """CPU time of one call: the best of five rounds."""
    best = float("inf")
    for _ in range(5):
        start = time.process_time()
        for _call in range(ROUNDS):
            work()
        best = min(best, time.process_time() - start)
    return best / ROUNDS * 1e6


def choosing(count: int, keys: AffinityKeys | None = None) -> Callable[[], object]:
    """Take, and give back what was taken fifty requests ago."""
    balancer = Balancer(
        [Backend(f"http://b{n}", f"b{n}", models=("m",)) for n in range(count)], RelayConfig(), 0
    )
    head = parse_request(HEAD, 1 << 20)
    running = [balancer.acquire("m", n) for n in range(50)]
    places = itertools.cycle(range(50))

    def one() -> None:
        place = next(places)
        slot = running[place]
        assert slot is not None
        balancer.release(slot)
        key = keys.key(head, BODY) if keys else None
        running[place] = balancer.acquire("m", 1, key)

    return one


def test_choosing_costs_little_beside_reading_the_head() -> None:
    head = microseconds(lambda: parse_request(HEAD, 1 << 20))
    print(f"\nreading the head {head:.1f} us")  # noqa: T201 - the table of make bench
    costs = {count: microseconds(choosing(count)) for count in (1, 2, 4, 8, 16)}
    for count, cost in costs.items():
        print(f"{count} backends: {cost:.2f} us")  # noqa: T201
    ways: tuple[Sticky, ...] = ("session", "prefix")
    for sticky in ways:
        keyed = microseconds(choosing(4, AffinityKeys(RelayConfig(sticky=sticky))))
        print(f"4 backends, {sticky}: {keyed:.2f} us")  # noqa: T201
        assert keyed < 2 * head
    assert costs[4] < head / 2
