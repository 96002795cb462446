import numpy as np
import pytest

from proxy.core.events import Arrive, Device, End, Event, Header, Output, Sample
from proxy.truth.view import View, normalised, overlaps, read, tokens

S = 1_000_000_000


def timeline(*samples: Event) -> list[Event]:
    """Two requests: a open over 0.5-2.5 s with two chunks, b over 1-2 s with one body."""
    return [
        Header(1, (Device("gpu0"),)),
        *samples,
        Arrive(S // 2, "a", "chat", "m", True, ("gpu0",)),
        Arrive(S, "b", "chat", "m", False, ("gpu0",)),
        Output(S + S // 4, "a", 1),
        End(2 * S - 1, "b", 200, False, 10, 0, 4),
        Output(2 * S + S // 4, "a", None),
        End(2 * S + S // 2, "a", 200, False, 20, 0, 3),
    ]


@pytest.fixture
def view() -> View:
    return read(timeline(*(Sample(n * S, "gpu0", energy_mj=n * 100_000.0) for n in range(4))))


def test_a_counter_becomes_windows_of_joules(view: View) -> None:
    assert view.windows[0].joules.tolist() == [100.0, 100.0, 100.0]
    assert view.joules == 300.0


def test_power_is_integrated_up_to_the_reading() -> None:
    found = read(timeline(*(Sample(n * S, "gpu0", power_mw=n * 1000.0) for n in range(4))))
    assert found.windows[0].joules.tolist() == [1.0, 2.0, 3.0]


def test_overlaps_are_the_seconds_in_each_window(view: View) -> None:
    found = overlaps(view.requests, view.windows[0])
    assert found == pytest.approx(np.array([[0.5, 1.0, 0.5], [0.0, 1.0, 0.0]]), abs=1e-8)


def test_tokens_count_in_the_window_of_their_chunk_and_the_rest_at_the_end(view: View) -> None:
    """Chunks of unknown size count as one token; the usage has one more than both chunks of a."""
    found = tokens(view.requests, view.windows[0], 1.0, 2.0)
    assert found.tolist() == [[0.0, 20.0 + 2.0, 2.0 + 2.0], [0.0, 10.0 + 8.0, 0.0]]


def test_a_window_without_weights_is_shared_by_nobody() -> None:
    assert normalised(np.array([[1.0, 0.0], [3.0, 0.0]])).tolist() == [[0.25, 0.0], [0.75, 0.0]]
