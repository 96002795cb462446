"""Provisional shares: what a request has cost so far, before the windows of its time are closed."""

from collections.abc import Sequence
from dataclasses import replace

import msgspec

from proxy.core.activity.tracks import Charge, Track
from proxy.core.energy.accounts import Account
from proxy.core.shares import Share
from proxy.schema import Unknown
from proxy.units import seconds_from_ns


def unmoved(share: Share) -> Share:
    """Return a share without joules: readings of its devices that never moved show nothing."""
    return msgspec.structs.replace(
        share,
        joules=None,
        joules_low=None,
        joules_high=None,
        parts=None,
        devices={},
        unknown=share.unknown or Unknown.NOT_MEASURED_YET,
    )


def charged_until(track: Track, measured: Sequence[Account], t_ns: int, running: int) -> Track:
    """Return a copy of a track that is also charged for the time up to ``t_ns`` that is not closed.

    For that time it gets an equal part of the last power of its devices; ``running``: requests at present.
    """
    copy = replace(track, charges={})
    for account in measured:
        known = track.charges.get(account.device, Charge())
        closed = account.closed_ns
        start = max(t_ns if closed is None else closed, track.start_ns)
        end = min(track.end_ns or t_ns, t_ns)
        still_open = (account.series.watts or 0.0) * max(seconds_from_ns(end - start), 0.0)
        charge = copy.charges[account.device] = replace(known)
        charge.add(still_open / running, still_open, still_open / running, 1.0)
    # A part of which nothing is known yet is not 0: some of what is still open may be its.
    copy.parts, copy.unsure = track.parts, track.unsure | (track.parts == 0.0)
    copy.unseparated = sum(c.joules for c in copy.charges.values()) - float(track.parts.sum())
    return copy
