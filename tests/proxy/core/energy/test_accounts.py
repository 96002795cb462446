import numpy as np
import pytest

from proxy.core.energy import accounts
from proxy.core.energy.accounts import Account
from proxy.core.events import Sample
from proxy.schema import Gap
from proxy.units import NS_PER_SECOND

S = NS_PER_SECOND


def booked(count: int, account: Account | None = None, first: int = 0) -> Account:
    """Windows of 1 s and 10 J: 6 to requests, 1 unattributed."""
    account = account or Account("gpu0")
    edges = (first + np.arange(count + 1, dtype=np.int64)) * S
    account.book(edges, np.full(count, 10.0), np.full(count, 6.0), np.full(count, 1.0))
    return account


def test_what_no_one_is_charged_for_is_idle() -> None:
    total = booked(4).total()
    assert (total.measured_joules, total.requests_joules) == (40.0, 24.0)
    assert (total.idle_joules, total.unattributed_joules) == (12.0, 4.0)
    assert (total.start_ns, total.end_ns, total.open_joules) == (0, 4 * S, 0.0)


def test_requests_never_get_more_than_was_measured() -> None:
    account = Account("gpu0")
    account.book(np.array([0, S]), np.array([10.0]), np.array([12.0]), np.array([1.0]))
    total = account.total()
    assert (total.requests_joules, total.idle_joules) == (9.0, 0.0)


def test_windows_at_the_ends_of_a_span_are_taken_in_proportion() -> None:
    over = booked(4).between(S // 2, 2 * S)
    assert over.measured_joules == pytest.approx(15.0)
    assert over.requests_joules == pytest.approx(9.0)


def test_before_the_first_window_nothing_is_known_to_have_been_used() -> None:
    over = Account("gpu0").between(0, S)
    assert (over.measured_joules, over.open_joules) == (0.0, 0.0)


def test_measured_after_the_last_closed_window_is_open() -> None:
    account = Account("gpu0")
    for second in range(4):
        account.series.feed(Sample(second * S, "gpu0", energy_mj=second * 10_000.0))
    booked(2, account)
    assert account.total().open_joules == pytest.approx(10.0)
    assert account.between(0, S).open_joules == 0.0


def test_old_edges_are_forgotten_totals_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accounts, "KEEP_WINDOWS", 10)
    account = Account("gpu0")
    for first in range(0, 100, 4):
        booked(4, account, first)
    assert account.total().measured_joules == pytest.approx(1_000.0)
    assert account.between(95 * S, 100 * S).measured_joules == pytest.approx(50.0)
    forgotten = account.between(0, 50 * S).measured_joules
    assert forgotten == 0.0, "only the newest edges are kept"


def test_what_lies_before_the_first_reading_or_is_no_longer_kept_is_a_gap(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(accounts, "KEEP_WINDOWS", 10)
    account = booked(4, first=10)
    early = account.between(8 * S, 12 * S)
    assert early.measured_joules == pytest.approx(20.0)
    assert early.gaps == (Gap(8 * S, 10 * S, "before_first_sample"),)
    assert account.between(2 * S, 4 * S).gaps == (Gap(2 * S, 4 * S, "before_first_sample"),)
    booked(40, account, first=14)
    assert account.between(20 * S, 60 * S).gaps[0].reason == "no_longer_kept"
    assert account.between(50 * S, 54 * S).gaps == ()
