"""Which backend takes a request."""

from proxy.config import Backend
from proxy.relay.balancer import Balancer
from proxy.units import NS_PER_SECOND


def test_the_fewest_outstanding_and_the_model_decide() -> None:
    balancer = Balancer([Backend("http://a", models=("m",)), Backend("http://b", models=("m", "n"))])
    a, b = balancer.slots
    a.outstanding = 2
    assert balancer.choose("m", 0) is b
    b.outstanding = 3
    assert balancer.choose("m", 0) is a
    assert balancer.choose("n", 0) is b
    assert balancer.choose("o", 0) is None


def test_failures_in_a_row_leave_a_backend_out_for_a_while() -> None:
    balancer = Balancer([Backend("http://a"), Backend("http://b")])
    a, b = balancer.slots
    for _ in range(3):
        balancer.failed(a, 0)
    assert balancer.choose(None, 0) is b
    assert balancer.choose(None, NS_PER_SECOND) is a
    balancer.answered(a)
    assert a.failures == 0


def test_the_only_backend_is_always_tried() -> None:
    balancer = Balancer([Backend("http://a", models=("m",))])
    for _ in range(5):
        balancer.failed(balancer.slots[0], 0)
    assert balancer.choose("other", 0) is balancer.slots[0]
