"""Parser of load levels: ``--rate``, ``--concurrency`` and ``--power-limits``. Pure."""

from proxy.inputs import InputError, parse_number

# Limits of what can be measured: no client sends more, or has more ports to one server (65,535), and the
# deadlines of a lower rate overflow 64 bits of nanoseconds.
LEAST_RATE, MOST_RATE = 1e-6, 1e6
MOST_IN_FLIGHT = 1e5


def parse_levels(text: str, option: str, *, whole: bool) -> tuple[float, ...]:
    """Parse ``8``, ``1,2,4`` or ``1..64`` (powers of two times the first value, and the last value).

    With ``whole`` the levels must be integers of at least 1. Raises ``ValueError`` with the option and an
    example.
    """
    try:
        low, dots, high = text.partition("..")
        ends = [parse_number(part) for part in ((low, high) if dots else text.split(","))]
    except InputError:
        raise _wrong(text, option) from None
    if any(end <= 0 or (whole and not end.is_integer()) for end in ends):
        raise _wrong(text, option)
    least, most = (1.0, MOST_IN_FLIGHT) if whole else (LEAST_RATE, MOST_RATE)
    if not least <= min(ends) <= max(ends) <= most:
        raise ValueError(f"{option} {text!r}: must be from {_plain(least)} to {_plain(most)}")
    if not dots:
        return tuple(dict.fromkeys(ends))
    if ends[1] < ends[0]:
        raise ValueError(f"{option} {text!r}: the range is descending; write {high}..{low}")
    return _doubling(ends[0], ends[1])


def _wrong(text: str, option: str) -> ValueError:
    kind = "whole numbers above zero" if option == "--concurrency" else "numbers above zero"
    return ValueError(f"{option} {text!r}: write {kind}, such as 8, a list 1,2,4 or a range 1..64")


def _plain(number: float) -> str:
    return f"{number:,.0f}" if number >= 1 else f"{number:f}"


def _doubling(low: float, high: float) -> tuple[float, ...]:
    found = [low]
    while found[-1] * 2 < high:
        found.append(found[-1] * 2)
    return tuple(found) if low == high else (*found, high)
