"""Whether a reading can be true: blank values, power bounds, and what a counter did when it jumped. Pure.

Drivers and exporters answer with placeholders ("blank" values), with 0, or with a stray number. Such a
reading is left out and counted. Nothing here knows where a reading came from, so that live and recorded
readings are judged alike.

A counter is compared with its last accepted reading, the *base*. A rise within the power bound is accepted at
once. Any other reading opens a *candidate*: a second history that starts with it. The readings that
follow decide. One that fits the base shows that the candidate was a glitch. Further moves that fit the
candidate confirm it: the counter was reset (driver reload) or jumped, and goes on from there. What was used
in between is not known, which is a gap, never energy. A candidate that stands still is never confirmed:
a blank or a 0 may be shown for as long as it likes.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from proxy.schema import Unknown
from proxy.units import MJ_PER_JOULE, NS_PER_SECOND, joules_from_mj

# Most that a device can draw where its limit is not known. 10 kW is above every single board and module sold
# (GB200 superchip: 2.7 kW) and about what a server of eight GPUs draws. ``Device.max_watts`` overrides it.
GENERIC_WATTS: Final = 10_000.0
# Power excursions above the limit last milliseconds; averaged over a reading, with a gain error of 5 %, they
# stay below this multiple of it.
EXCURSION: Final = 1.5
# Readings are late or early by a counter update (up to 100 ms) or by a scrape of the exporter.
_SLACK_S: Final = 0.25
# A rise is doubtful, though possible, beyond this power and twice the highest that was seen.
_USUAL_WATTS: Final = 1_500.0
# Moves that confirm a candidate, and a reset: one that starts far below the base, as a counter does at 0.
_CONFIRM_MOVES: Final = 2
_CONFIRM_RESET: Final = 1
_FAR_BELOW: Final = 0.5

# DCGM (dcgm_structs.h): DCGM_INT32_BLANK 0x7ffffff0, DCGM_INT64_BLANK 0x7ffffffffffffff0 and DCGM_FP64_BLANK
# 2**47, each followed by "not found", "not supported" and "no permission". NVML: NVML_VALUE_NOT_AVAILABLE
# (-1) as unsigned. As floats, all 64-bit blanks are 2**63.
_BLANKS: Final = frozenset(
    [float(0x7FFFFFF0 + i) for i in range(16)]
    + [float((1 << 47) + i) for i in range(16)]
    + [float(1 << 63), float(1 << 64), float((1 << 32) - 1)]
)
# Registers wrap at 32 or 64 bits of millijoules or microjoules.
_WRAPS_MJ: Final = (2.0**32, 2.0**64, 2.0**32 / 1e3, 2.0**64 / 1e3)
_WRAP_MARGIN: Final = 0.1  # of the range: so near its end was the last reading, so near its begin is this one


def is_amount(value: float) -> bool:
    """Whether a reading, in any unit, is an amount at all: finite, not negative, no blank value.

    A source that counts in joules or watts has multiplied its blanks by 1000.
    """
    if not 0.0 <= value < math.inf:
        return False
    return value not in _BLANKS and value / MJ_PER_JOULE not in _BLANKS


@dataclass(frozen=True, slots=True)
class Move:
    """An accepted change of a counter at ``t_ns``: joules since the move before, or a gap since then."""

    t_ns: int
    joules: float
    gap: str | None = None


class _Candidate:
    """Readings that do not fit the base: its first, its moves since, and how many readings in all."""

    __slots__ = ("count", "points")

    def __init__(self, t_ns: int, mj: float) -> None:
        self.points = [(t_ns, mj)]
        self.count = 1

    def add(self, t_ns: int, mj: float) -> None:
        self.count += 1
        if mj != self.points[-1][1]:
            self.points.append((t_ns, mj))

    def watts(self) -> float:
        (t0, e0), (t1, e1) = self.points[0], self.points[-1]
        return _watts(e1 - e0, t1 - t0)


class CounterFilter:
    """Judges the readings of one counter, in millijoules, in order of their stamps.

    ``rejected`` counts the readings that were found to be none.
    """

    __slots__ = ("_base_mj", "_base_t", "_candidate", "_peak_watts", "max_watts", "rejected")

    def __init__(self, max_watts: float = GENERIC_WATTS) -> None:
        self.max_watts = max_watts
        self.rejected = 0
        self._base_t = 0
        self._base_mj: float | None = None
        self._candidate: _Candidate | None = None
        self._peak_watts = 0.0

    @property
    def base_mj(self) -> float | None:
        """The last accepted reading; None before the first."""
        return self._base_mj

    def rebase(self, t_ns: int, mj: float) -> None:
        """Take a reading as it is: nothing is known of the time before."""
        self._drop()
        self._base_t, self._base_mj = t_ns, mj

    def feed(self, t_ns: int, mj: float) -> list[Move] | None:
        """Moves that this reading establishes, oldest first; None where it is not (yet) believed.

        An empty list is a reading that is believed, and shows nothing new.
        """
        assert self._base_mj is not None
        candidate = self._candidate
        # A candidate above the base is asked first, because with time any jump comes within the power bound;
        # so is one that has moved: a counter that was reset soon reaches a base that was low.
        follows = candidate is not None and self._continues(t_ns, mj)
        if candidate is not None and follows:
            above = candidate.points[0][1] > self._base_mj
            if above or len(candidate.points) > 1:
                return self._grow(candidate, t_ns, mj)
        rise = self._rise(t_ns, mj)
        if rise is not None and rise <= self._usual_mj(t_ns - self._base_t):
            self._drop()
            if rise == 0.0:
                return []
            move = Move(t_ns, joules_from_mj(rise))
            self._accept(t_ns, mj, rise)
            return [move]
        if candidate is not None and follows:
            return self._grow(candidate, t_ns, mj)
        self._drop()
        self._candidate = _Candidate(t_ns, mj)
        return None

    def _grow(self, candidate: _Candidate, t_ns: int, mj: float) -> list[Move] | None:
        assert self._base_mj is not None
        candidate.add(t_ns, mj)
        reset = candidate.points[0][1] < _FAR_BELOW * self._base_mj
        needed = _CONFIRM_RESET if reset else _CONFIRM_MOVES
        return list(self._adopt(candidate)) if len(candidate.points) > needed else None

    def _adopt(self, candidate: _Candidate) -> Iterator[Move]:
        """Go on with the candidate. Its first reading is a baseline, unless its rise was power as since."""
        assert self._base_mj is not None
        self._candidate = None
        first_t, first_mj = candidate.points[0]
        rise, length = first_mj - self._base_mj, first_t - self._base_t
        if rise < 0.0:
            yield Move(first_t, 0.0, Unknown.COUNTER_RESET)
        elif rise > self._bound_mj(length) or _watts(rise, length) > 2 * candidate.watts():
            yield Move(first_t, 0.0, Unknown.COUNTER_JUMP)
        else:
            yield Move(first_t, joules_from_mj(rise))
        self._base_t, self._base_mj = first_t, first_mj
        for t_ns, mj in candidate.points[1:]:
            rise = mj - self._base_mj
            yield Move(t_ns, joules_from_mj(rise))
            self._accept(t_ns, mj, rise)

    def end(self) -> list[Move]:
        """Resolve a pending candidate when no more readings come: a gap up to it."""
        candidate, self._candidate = self._candidate, None
        if candidate is None or self._base_mj is None:
            return []
        first_t, first_mj = candidate.points[0]
        return [
            Move(first_t, 0.0, Unknown.COUNTER_RESET if first_mj < self._base_mj else Unknown.COUNTER_JUMP)
        ]

    def _accept(self, t_ns: int, mj: float, rise: float) -> None:
        self._peak_watts = max(self._peak_watts, _watts(rise, t_ns - self._base_t))
        self._base_t, self._base_mj = t_ns, mj

    def _rise(self, t_ns: int, mj: float) -> float | None:
        """Millijoules since the base, over a register's wrap if need be; None for a counter that fell."""
        assert self._base_mj is not None
        if mj >= self._base_mj:
            return mj - self._base_mj
        usual = self._usual_mj(t_ns - self._base_t)
        wrapped = (
            mj + modulus - self._base_mj
            for modulus in _WRAPS_MJ
            if self._base_mj > modulus * (1 - _WRAP_MARGIN) and mj < modulus * _WRAP_MARGIN
        )
        return next((rise for rise in wrapped if 0.0 < rise <= usual), None)

    def _continues(self, t_ns: int, mj: float) -> bool:
        """Whether a reading may be the candidate's next."""
        if self._candidate is None:
            return False
        last_t, last_mj = self._candidate.points[-1]
        return 0.0 <= mj - last_mj <= self._bound_mj(t_ns - last_t)

    def _usual_mj(self, length_ns: int) -> float:
        return _mj(min(max(_USUAL_WATTS, 2 * self._peak_watts), self.max_watts), length_ns)

    def _bound_mj(self, length_ns: int) -> float:
        return _mj(self.max_watts, length_ns)

    def _drop(self) -> None:
        """The candidate was a glitch."""
        if self._candidate is not None:
            self.rejected += self._candidate.count
            self._candidate = None


class PowerFilter:
    """Judges the readings of power, in watts. A single 0 between others is a reading that failed.

    So is each 0 before the first other value: a device that is switched on draws power, and a sensor that has
    shown nothing else does not work.
    """

    __slots__ = ("_works", "_zero_t", "last", "max_watts", "rejected")

    def __init__(self, max_watts: float = GENERIC_WATTS) -> None:
        self.max_watts = max_watts
        self.rejected = 0
        self.last = 0.0
        self._works = False  # a value above 0 was seen
        self._zero_t: int | None = None

    def feed(self, t_ns: int, watts: float) -> list[tuple[int, float]]:
        """The readings, stamp and watts, that are believed by now and were not before."""
        if watts > self.max_watts or (watts == 0.0 and not self._works):
            self.rejected += 1
            return []
        self._works = True
        if watts == 0.0 and self.last > 0.0 and self._zero_t is None:
            self._zero_t = t_ns
            return []
        believed = [(t_ns, watts)]
        if self._zero_t is not None:
            if watts == 0.0:
                believed.insert(0, (self._zero_t, 0.0))
            else:
                self.rejected += 1
            self._zero_t = None
        self.last = watts
        return believed


def _mj(watts: float, length_ns: int) -> float:
    return watts * MJ_PER_JOULE * (length_ns / NS_PER_SECOND + _SLACK_S)


def _watts(mj: float, length_ns: int) -> float:
    """Mean power, slack included: of two readings a moment apart nothing is concluded."""
    return mj / MJ_PER_JOULE / (length_ns / NS_PER_SECOND + _SLACK_S)
