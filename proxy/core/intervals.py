"""Uncertainty: the half width of a request's 90 % interval, in joules.

Where a fitted model divides the energy, its mismatch with the meter tells how far it can be trusted: on
engines of known truth the error stays below a multiple of the request's own mismatch (root mean square over
the windows it was in, by its joules) about nine times in ten, from light load to overload, with clean and
with blurred timelines and under a power cap (docs/accuracy.md has the coverage). Beside it count: a young
model, for requests of few counter updates; prompts whose length was guessed; requests of which nothing was
read, and work that did not pass through, in the same windows; the gain error of the sensor, where it is
stated; and a floor, below which the smallest mismatch promises too much.
"""

import math
from collections.abc import Sequence
from typing import Final

from proxy.core.activity.tracks import Charge, Track
from proxy.core.activity.work import PARTS
from proxy.core.energy.accounts import Account
from proxy.core.reconstruct.unread import ARRIVALS
from proxy.units import NS_PER_SECOND

_USUAL_PERIOD_SECONDS: Final = 0.1  # the mismatch of longer windows averages out; the error does not
_FEW_UPDATES: Final = 5.0  # of the counter: a shorter request's energy is the model's word alone
_FLOOR: Final = 0.008  # of a request's joules: measured p95 error of clean streams under heavy load
_COUNTER: Final = 2.6  # times the mismatch: measured under a power cap, whose clock the model does not know
_POWER: Final = 2.0  # the same of readings of power, 25 ms in 100 and means of a second
_GUESS: Final = 1.0  # of what a prompt whose length was guessed is charged: computing and reading it
_UNREAD: Final = 1.5  # of what may as well be others': unread answers take from nothing to 2.5 times it
_FOREIGN: Final = 0.5  # of a request beside unseen traffic: measured p95 error, two proxies before an engine
_TERMS: Final = 1.645  # standard deviations to each side hold 90 %
_OVERLAP: Final = 0.08  # measured: error of equal division, of the mean of what it could be (geometric)
_PREFILL: Final = PARTS.index("prefill")
_CONTEXT: Final = PARTS.index("context")


def half_width(track: Track, accounts: Sequence[Account], *, modelled: bool) -> float:
    """Joules by which the request's energy may be off, with 90 % confidence."""
    squares = 0.0
    for account in accounts:
        charge = track.charges.get(account.device)
        if charge is not None and charge.joules > 0.0:
            doubt = _modelled(track, account, charge) if modelled else _divided(charge)
            doubt += _UNREAD * charge.guessed
            if account.outside.reason(track.start_ns, track.end_ns) is not None:
                doubt += _FOREIGN * charge.joules
            squares += doubt**2 + ((account.gain_error or 0.0) * charge.joules) ** 2
    if modelled and track.prompt_tokens is None and track.evidence != ARRIVALS:
        squares += (_GUESS * float(track.parts[_PREFILL] + track.parts[_CONTEXT])) ** 2
    elif modelled and track.prompt_doubt:
        squares += (_TERMS * min(track.prompt_doubt, 1.0) * float(track.parts[_PREFILL])) ** 2
    return math.sqrt(squares)


def _modelled(track: Track, account: Account, charge: Charge) -> float:
    period = (account.series.period_ns or 0.0) / NS_PER_SECOND
    mismatch = math.sqrt(charge.misfit * charge.joules * period / _USUAL_PERIOD_SECONDS)
    mismatch *= _POWER if account.series.of_power else _COUNTER
    updates = _updates(track, account)
    young = charge.young * min(1.0, _FEW_UPDATES / max(updates, 1.0))
    return math.hypot(mismatch + young, _FLOOR * charge.joules, _TERMS * charge.terms)


def _divided(charge: Charge) -> float:
    """Equal division: the more others shared in what was measured, the less it says of one."""
    return _OVERLAP * math.sqrt(charge.joules * charge.life)


def _updates(track: Track, account: Account) -> float:
    end, period = track.end_ns, account.series.period_ns
    if end is None or not period:
        return 0.0
    return (end - track.start_ns) / period
