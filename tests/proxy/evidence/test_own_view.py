from proxy.core.events import Arrive, End, Sample
from proxy.core.request_events import RequestEnd, RequestStart
from proxy.evidence.own_view import OwnView


def _opened(name: str, backend: str = "a") -> RequestStart:
    return RequestStart(Arrive(0, name, backend=backend))


def test_the_most_in_flight_since_the_last_look() -> None:
    view = OwnView()
    for name in ("x", "y", "z"):
        view.add(_opened(name))
    view.add(RequestEnd(End(0, "x")))
    view.add(RequestEnd(End(0, "never opened")))
    view.add(Sample(0, "gpu0", energy_mj=1))
    assert view.look("a").most_in_flight == 3
    assert view.look("a").most_in_flight == 2
    assert view.look("b").most_in_flight == 0


def test_backends_are_apart() -> None:
    view = OwnView()
    view.add(_opened("x", "a"))
    view.add(_opened("y", "b"))
    view.add(RequestEnd(End(0, "x")))
    assert view.look("b").most_in_flight == 1
    view.look("a")
    assert view.look("a").most_in_flight == 0
