"""Physics of a board: power ramps, idle and deep idle, temperature and thermal throttling. Pure.

Power approaches the engine's demand with a first-order lag; temperature approaches its steady state for that
power with a slower one. A board that is too hot lowers its power limit (:meth:`Board.limit`), which makes the
engine's steps longer.
"""

import math
from dataclasses import dataclass
from typing import Final

_COOL: Final = 5.0  # degrees below ``hot`` at which the limit is lifted
_NEAR_WATTS: Final = 0.5
_NEAR_CELSIUS: Final = 0.5
_LOOK_SECONDS: Final = 1.0  # interval between updates of a board that cools


@dataclass(slots=True)
class Board:
    """State and constants of the devices of one engine; watts of all of them together.

    ``ramp_seconds``: time constant of power, 0: at once. ``deep_watts``: after ``deep_seconds`` without work,
    None: never. ``hot``: degrees Celsius at which it throttles, None: never. The constants of heat are
    assumed: an H100 at 700 W settles at 72 degrees.
    """

    idle_watts: float
    devices: int = 1
    ramp_seconds: float = 0.0
    deep_watts: float | None = None
    deep_seconds: float = math.inf
    hot: float | None = None
    ambient: float = 30.0
    celsius_per_watt: float = 0.06  # of one device
    heat_seconds: float = 15.0
    level: float = math.nan  # watts now
    celsius: float = math.nan
    throttled: bool = False

    def __post_init__(self) -> None:
        self.level = self.idle_watts
        self.celsius = self._settled(self.idle_watts)

    def step(self, watts: float, seconds: float) -> float:
        """Advance by ``seconds`` of work that demands ``watts``; return the mean power drawn, in watts."""
        mean = self._mean(watts, seconds)
        self._follow(watts, mean, seconds)
        return mean

    def idle(self, rested: float) -> tuple[float, float]:
        """Return seconds and watts of the next idle segment, ``rested`` seconds after work ended."""
        target, left = self._target(rested), math.inf
        if self.deep_watts is not None and rested < self.deep_seconds:
            left = self.deep_seconds - rested
        if self.ramp_seconds and abs(self.level - target) > _NEAR_WATTS:
            seconds = min(self.ramp_seconds, left)
            return seconds, self._mean(target, seconds)
        if abs(self.celsius - self._settled(target)) > _NEAR_CELSIUS:
            left = min(left, _LOOK_SECONDS)
        return left, target

    def rest(self, rested: float, watts: float, seconds: float) -> None:
        """End the present piece, possibly before its planned end, after ``seconds`` at ``watts``."""
        self._follow(self._target(rested), watts, seconds)

    def limit(self) -> float | None:
        """Return the power limit in watts due to heat; None: no limit."""
        if self.hot is None:
            return None
        if self.celsius >= self.hot:
            self.throttled = True
        elif self.celsius < self.hot - _COOL:
            self.throttled = False
        allowed = self.devices * (self.hot - _COOL / 2 - self.ambient) / self.celsius_per_watt
        return max(allowed, 1.01 * self.idle_watts) if self.throttled else None

    def _target(self, rested: float) -> float:
        deep = self.deep_watts is not None and rested >= self.deep_seconds
        return self.deep_watts if deep and self.deep_watts is not None else self.idle_watts

    def _mean(self, watts: float, seconds: float) -> float:
        """Of a first-order approach from the level now."""
        if not self.ramp_seconds or seconds <= 0:
            return watts
        share = self.ramp_seconds / seconds * -math.expm1(-seconds / self.ramp_seconds)
        return watts + (self.level - watts) * share

    def _follow(self, watts: float, mean: float, seconds: float) -> None:
        left = math.exp(-seconds / self.ramp_seconds) if self.ramp_seconds else 0.0
        self.level = watts + (self.level - watts) * left
        settled = self._settled(mean)
        self.celsius = settled + (self.celsius - settled) * math.exp(-seconds / self.heat_seconds)

    def _settled(self, watts: float) -> float:
        return self.ambient + self.celsius_per_watt * watts / self.devices
