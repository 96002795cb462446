"""Shares: the joules of one request, as the core knows them, and how sure it is of them."""

from collections.abc import Sequence

import msgspec

from proxy.core.activity.tracks import Charge, Track
from proxy.core.energy.accounts import Account
from proxy.core.intervals import half_width
from proxy.core.jobs import is_job
from proxy.core.reconstruct.cached import UNKNOWN, cached_from
from proxy.core.reconstruct.unread import ARRIVALS
from proxy.schema import Parts, Unknown


class Share(msgspec.Struct, frozen=True, kw_only=True):
    """The joules of one request, as the core knows them (fields as in ``RequestEnergy``)."""

    request: str
    joules: float | None
    joules_low: float | None
    joules_high: float | None
    parts: Parts | None
    policy: str
    evidence: str
    cached_from: str = UNKNOWN
    devices: dict[str, float]
    unknown: str | None
    final: bool
    engines: int | None = None


def share_of(
    track: Track, accounts: Sequence[Account], policy: str, *, with_parts: bool, final: bool
) -> Share:
    """Return the share of a request measured by ``accounts``: those of its devices that have readings."""
    if is_job(track):
        return _of_job(track, policy, final=final)
    unknown = why_unknown(track, accounts, final=final)
    foreign = why_uncertain(track, accounts)
    charges = track.charges
    if not charges and unknown is None:
        charges = {account.device: Charge() for account in accounts}
    joules = sum(c.joules for c in charges.values())
    width = half_width(track, accounts, modelled=with_parts)
    return Share(
        request=track.arrive.request,
        joules=joules if charges else None,
        joules_low=max(joules - width, 0.0) if charges else None,
        joules_high=joules + width if charges and unknown is None else None,
        parts=_parts(track) if charges and with_parts else None,
        policy=policy,
        evidence=track.evidence,
        cached_from=cached_from(track),
        devices={device: c.joules for device, c in charges.items()},
        unknown=(unknown or foreign) if charges else unknown or Unknown.NO_SAMPLES,
        final=final,
    )


def _of_job(track: Track, policy: str, *, final: bool) -> Share:
    """The share of a job's POST: what the job uses is not known, and is nobody's."""
    return Share(
        request=track.arrive.request,
        joules=None,
        joules_low=None,
        joules_high=None,
        parts=None,
        policy=policy,
        evidence=ARRIVALS,
        cached_from=UNKNOWN,
        devices={},
        unknown=Unknown.JOB_NOT_TRACKED if track.arrive.devices else Unknown.NO_DEVICE,
        final=final,
    )


def why_unknown(track: Track, accounts: Sequence[Account], *, final: bool) -> str | None:
    """Why the energy of a request is not, or not wholly, known; None where it is."""
    if not track.arrive.devices:
        return Unknown.NO_DEVICE
    if len(accounts) < len(track.arrive.devices):
        return Unknown.NO_SAMPLES
    end = track.end_ns
    for account in accounts:
        first, closed = account.series_start_ns, account.closed_ns
        if first is None:
            first = account.series.first_ns  # nothing is closed yet, so nothing was forgotten
        if first is None or first > track.start_ns:
            return Unknown.BEFORE_FIRST_SAMPLE
        if final and end is not None and closed is not None and closed < end:
            return Unknown.AFTER_LAST_SAMPLE
        for gap in account.series.gaps:
            if gap.end_ns > track.start_ns and (end is None or gap.start_ns < end):
                return gap.reason
    return Unknown.RUNNING if final and end is None else None


def why_uncertain(track: Track, accounts: Sequence[Account]) -> Unknown | None:
    """Why the joules of a request are an estimate: foreign work on its devices; None where there was none."""
    for account in accounts:
        reason = account.outside.reason(track.start_ns, track.end_ns)
        if reason is not None:
            return reason
    return None


def _parts(track: Track) -> Parts:
    """The parts of a request; those that are unsure are null, and their sum is in ``unseparated``."""
    rows = list(zip(track.parts.tolist(), track.unsure.tolist(), strict=True))
    static, decode, context, prefill = [None if hidden else joules for joules, hidden in rows]
    return Parts(
        static=static,
        decode=decode,
        context=context,
        prefill=prefill,
        unseparated=track.unseparated + sum(joules for joules, hidden in rows if hidden),
    )
