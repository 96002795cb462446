"""Backlog: how much of the measured time is divided at once.

Windows wait for the requests in them: for a long stream a minute of thousands of short requests may wait. The
meter does nothing else while windows are divided, so a closing is cut where its work is about
``CLOSING_WORK``; the rest follows with the next readings or ends. The cut depends on events alone: live and
offline it is the same.
"""

from collections.abc import Iterable
from typing import Final

import numpy as np

from proxy.core.activity.tracks import Group, Track
from proxy.core.reconstruct.unread import counted_tokens

# In units of one output (about a microsecond): a quarter of a second. A request costs as much as 80 of them,
# its record included.
CLOSING_WORK: Final = 250_000
_REQUEST: Final = 80
_LEAST_TOKEN_NS: Final = (
    100_000  # as many outputs are made of a non-streamed response at most (``non_streamed``)
)


def work_of(track: Track) -> int:
    """Return the work of dividing an ended request, streamed outputs not counted."""
    tokens = 0
    if not track.arrive.stream and track.end is not None:
        tokens = min(counted_tokens(track) or 0, (track.end.t_ns - track.start_ns) // _LEAST_TOKEN_NS)
    return _REQUEST + tokens


def cut(ended: Iterable[Track], groups: Iterable[Group], start_ns: int, end_ns: int) -> int:
    """Return the stamp up to which about ``CLOSING_WORK`` can be divided, at most ``end_ns``.

    Args:
        ended: requests that are not final, in order of their ends.
        groups: all engines, with their outputs.
        start_ns: from which windows are open; outputs before are kept for the steps at this boundary.
        end_ns: up to which all requests are known.
    """
    for group in groups:
        t_ns = group.outputs.t_ns
        last = int(np.searchsorted(t_ns, start_ns, side="right")) + CLOSING_WORK
        if len(t_ns) > last:
            end_ns = min(end_ns, int(t_ns[last]))
    room = CLOSING_WORK
    for track in ended:
        room -= work_of(track)
        if room < 0:
            return min(end_ns, track.end_ns or end_ns)
    return end_ns
