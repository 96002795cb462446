"""Conversion factors between units; no other module contains one.

Energy is joules, power watts, time integer nanoseconds of a monotonic clock or seconds. Names carry
their unit (``_joules``, ``_watts``, ``_ns``, ``_seconds``).
"""

from typing import Final

NS_PER_SECOND: Final = 1_000_000_000
NS_PER_MS: Final = 1_000_000
MS_PER_SECOND: Final = 1_000
US_PER_SECOND: Final = 1_000_000
MJ_PER_JOULE: Final = 1_000
UJ_PER_MJ: Final = 1_000
MW_PER_WATT: Final = 1_000

MAX_EXACT_INTEGER: Final = 1 << 53  # the largest that every reader of JSON keeps exact (RFC 8259, section 6)


def joules_from_mj(millijoules: float) -> float:
    """Return the joules of a counter reading in millijoules."""
    return millijoules / MJ_PER_JOULE


def watts_from_mw(milliwatts: float) -> float:
    """Return the watts of a power reading in milliwatts."""
    return milliwatts / MW_PER_WATT


def seconds_from_ns(nanoseconds: int) -> float:
    """Return the seconds of an interval in nanoseconds."""
    return nanoseconds / NS_PER_SECOND


def ns_from_seconds(seconds: float) -> int:
    """Return the nanoseconds of an interval in seconds, rounded to nearest."""
    return round(seconds * NS_PER_SECOND)
