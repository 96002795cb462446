"""Estimate power as utilisation times stated watts where no sensor exists; used only if requested by name.

``estimate:cpu=IDLE..FULL`` estimates the power of this host's CPUs from their utilisation in ``/proc/stat``:
IDLE watts when nothing runs, FULL (the stated TDP) when all cores are busy, linear in between;
``estimate:cpu=FULL`` takes IDLE as 0. It is not a measurement: records have the source ``estimate``.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Final

from proxy.clock import now_ns
from proxy.core.events import Device, Sample
from proxy.energy.source import Found, SensorError, SourceOptions
from proxy.inputs import parse_number
from proxy.units import MW_PER_WATT

_STAT: Final = Path("/proc/stat")
_MOST_WATTS: Final = 100_000.0  # more than any host draws: a typing error
_IDLE_FIELDS: Final = slice(3, 5)  # idle and iowait, proc(5)
_FIELDS: Final = slice(0, 8)  # user to steal, proc(5); guest time is included in user time
_ERROR: Final = 0.5  # relative; power is not linear in utilisation


class EstimateSource:
    """The CPUs of this host, from their utilisation since the last reading.

    Args:
        argument: ``cpu=[IDLE..]FULL`` in watts.
        stat: Path of ``/proc/stat``; tests replace it.
        clock: Monotonic clock in nanoseconds.

    Raises:
        SensorError: if the argument is malformed.
    """

    name = "estimate"
    interval_s: float | None = 0.1  # /proc/stat counts in ticks of 10 ms

    def __init__(self, argument: str, stat: Path = _STAT, clock: Callable[[], int] = now_ns) -> None:
        self._idle_w, self._full_w = _parse(argument)
        self._stat = stat
        self._clock = clock
        self._last = (0, 0)
        self._watts: float | None = None

    def open(self) -> list[Found]:
        """Read the utilisation once; raises :class:`SensorError` if the kernel does not report it."""
        self._last = self._times()
        device = Device(
            "cpu0", "CPUs of this host (estimate)", source=self.name, gain_error=_ERROR, kind="cpu"
        )
        reading = f"utilisation, {self._idle_w:g} W to a stated {self._full_w:g} W"
        return [Found(device, reading, None, None, ("an ESTIMATE, not a measurement",))]

    def read(self) -> list[Sample]:
        """Return the power that corresponds to the utilisation since the last reading."""
        busy, total = self._times()
        last_busy, last_total = self._last
        if total > last_total:
            share = min(max((busy - last_busy) / (total - last_total), 0.0), 1.0)
            self._watts = self._idle_w + (self._full_w - self._idle_w) * share
            self._last = (busy, total)
        if self._watts is None:
            return []
        return [Sample(self._clock(), "cpu0", power_mw=self._watts * MW_PER_WATT, source=self.name)]

    def close(self) -> None:
        """Do nothing: no resources are held."""

    def _times(self) -> tuple[int, int]:
        """Return busy and total time of all cores, in ticks."""
        try:
            words = self._stat.read_text().splitlines()[0].split()
            ticks = [int(word) for word in words[1:]]
        except (OSError, ValueError, IndexError) as error:
            raise SensorError(f"estimate: cannot read utilisation from {self._stat}: {error}") from error
        total = sum(ticks[_FIELDS])
        return total - sum(ticks[_IDLE_FIELDS]), total


def _parse(argument: str) -> tuple[float, float]:
    """Return idle and full watts of ``cpu=[IDLE..]FULL``."""
    what, _, watts = argument.partition("=")
    idle, dots, full = watts.partition("..")
    try:
        low, high = (parse_number(idle), parse_number(full)) if dots else (0.0, parse_number(watts))
    except ValueError:
        low, high = -1.0, -1.0
    if what != "cpu" or not 0 <= low < high <= _MOST_WATTS:
        raise SensorError(f"estimate:{argument}: should be cpu=[IDLE..]FULL in watts, as cpu=40..250")
    return low, high


def create(options: SourceOptions) -> EstimateSource:
    """Create the source that :mod:`proxy.config.sources` registers as ``estimate``."""
    return EstimateSource(options.argument)
