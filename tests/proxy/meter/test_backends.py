"""What several relays say of several backends."""

from proxy.config import Backend
from proxy.ipc import BackendState, RelayState
from proxy.meter.backends import Backends
from proxy.units import NS_PER_SECOND


def state(name: str, how: str, outstanding: int = 0, models: tuple[str, ...] = ()) -> BackendState:
    return BackendState(name, how, outstanding, 0, None, models)


def test_the_best_that_a_worker_sees_and_the_sum_of_what_they_have_there() -> None:
    seen = Backends()
    seen.update_backend(1, state("a", "down", 1, ("m",)))
    seen.update_backend(2, state("a", "up", 2, ("n",)))
    seen.update_backend(2, state("a", "ejected", 3, ("n",)))
    seen.update_backend(2, state("gone", "up"))
    a, b = seen.view(
        [Backend("http://a", "a"), Backend("http://b", "b", models=("x",))], {"a": ("gpu1",)}, NS_PER_SECOND
    )
    assert (a.state, a.outstanding, a.models, a.devices) == ("ejected", 4, ("m", "n"), ("gpu1",))
    assert [(one.worker, one.for_seconds) for one in a.workers] == [(1, 1.0), (2, 1.0)]
    assert (b.state, b.models, b.workers) == (None, ("x",), ())
    seen.update_relay(2, RelayState(77, 3, 2, 1, 4))
    assert [(r.worker, r.pid, r.connections) for r in seen.relays()] == [(2, 77, 4)]
    seen.remove_relay(2)
    assert not seen.relays()
    assert seen.view([Backend("http://a", "a")], {}, 0)[0].state == "down"
