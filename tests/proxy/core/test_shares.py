import numpy as np
import pytest

from proxy.core.activity.tracks import Charge, Track
from proxy.core.energy.accounts import Account
from proxy.core.events import Arrive, End, Sample
from proxy.core.shares import share_of, why_unknown
from proxy.units import NS_PER_SECOND

S = NS_PER_SECOND


def track(start_s: int = 1, end_s: int | None = 2, devices: tuple[str, ...] = ("gpu0",)) -> Track:
    return Track(Arrive(start_s * S, "a", devices=devices), end=End(end_s * S, "a") if end_s else None)


def account(*joules: float) -> Account:
    """Readings a second apart, from second 0; nothing is closed."""
    made = Account("gpu0")
    for second, energy in enumerate(joules):
        made.series.feed(Sample(second * S, "gpu0", energy_mj=energy * 1e3))
    return made


def closed(made: Account, seconds: int) -> Account:
    zeros = np.zeros(seconds)
    made.book(np.arange(seconds + 1, dtype=np.int64) * S, zeros, zeros, zeros)
    return made


def test_a_share_is_the_sum_of_its_charges() -> None:
    mine = track()
    mine.charges["gpu0"] = Charge(5.0, life=5.0)
    mine.parts[:] = (1.0, 2.0, 0.5, 1.5)
    share = share_of(mine, [account(0, 1, 2)], "steps", with_parts=True, final=False)
    assert (share.joules, share.devices) == (5.0, {"gpu0": 5.0})
    assert share.parts is not None
    assert (share.parts.static, share.parts.prefill) == (1.0, 1.5)
    assert share.joules_low is not None
    assert share.joules_high is not None
    assert share.joules_low < 5.0 < share.joules_high


def test_measured_and_not_charged_is_zero_but_unmeasured_is_unknown() -> None:
    share = share_of(track(), [account(0, 1, 2)], "overlap", with_parts=False, final=False)
    assert (share.joules, share.unknown, share.parts) == (0.0, None, None)
    share = share_of(track(), [], "overlap", with_parts=False, final=False)
    assert (share.joules, share.unknown) == (None, "no_samples")


def test_a_gap_within_the_life_leaves_no_upper_bound() -> None:
    mine = track(0, 3)
    mine.charges["gpu0"] = Charge(5.0, life=5.0)
    share = share_of(mine, [account(8, 9, 0, 1)], "overlap", with_parts=False, final=False)
    assert (share.joules, share.joules_high, share.unknown) == (5.0, None, "counter_reset")


@pytest.mark.parametrize(
    ("mine", "accounts", "reason"),
    [
        (track(devices=()), [], "no_device"),
        (track(), [], "no_samples"),
        (track(), [Account("gpu0")], "before_first_sample"),
        (track(-1), [account(0, 1, 2)], "before_first_sample"),
        (track(1, 3), [closed(account(0, 1, 2), 2)], "after_last_sample"),
        (track(0, None), [account(8, 9, 0, 1)], "counter_reset"),
        (track(3, 4), [closed(account(8, 9, 0, 1, 2), 4)], None),
        (track(1, 2), [closed(account(0, 1, 2), 2)], None),
    ],
)
def test_why_a_share_is_unknown(mine: Track, accounts: list[Account], reason: str | None) -> None:
    assert why_unknown(mine, accounts, final=True) == reason
