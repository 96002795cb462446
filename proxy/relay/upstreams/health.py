# Compiled by mypyc: see setup.py.
"""Health of one backend in one worker, by active checks and by the outcome of requests. No I/O, no clock.

    up ---- health_failures checks fail in a row ----> down ---- health_successes pass in a row ----> up
    up ---- eject_failures requests fail in a row ---> ejected for a back-off, then half-open: one request a
            back-off goes there. Answered: up. Failed: ejected for twice as long

A request fails if there is no connection, no response, or a 5xx while another backend could serve it.

The first check of all decides by itself. A backend that recovers starts slowly: its share of the load grows
from a tenth to all of it within ``slow_start_seconds``.
"""

from typing import Final, Literal

from proxy.config import RelayConfig
from proxy.units import ns_from_seconds

State = Literal["up", "ejected", "down"]
_LEAST_WEIGHT: Final = 0.1


class Health:
    """``state``, its ``reason`` and since when; ``now_ns`` is the monotonic clock throughout."""

    __slots__ = (
        "_backoffs",
        "_config",
        "_failures",
        "_next_check_ns",
        "_retry_ns",
        "_run",
        "checked",
        "reason",
        "since_ns",
        "state",
        "warm_ns",
    )

    def __init__(self, config: RelayConfig, now_ns: int, *, slowly: bool = False) -> None:
        self._config = config
        self._failures = 0  # of requests, in a row
        self._run = 0  # consecutive checks that contradict the state
        self._backoffs = 0
        self._retry_ns = 0
        self._next_check_ns = now_ns
        self.checked = False
        self.state: State = "up"
        self.reason: str | None = None
        self.since_ns = now_ns
        self.warm_ns = now_ns + self._slow_ns() if slowly else 0  # end of the slow start; 0: none

    def accepts(self, now_ns: int) -> bool:
        """Return whether a request may be sent to this backend."""
        return self.state == "up" or (self.state == "ejected" and now_ns >= self._retry_ns)

    def record_request(self, now_ns: int) -> None:
        """Record a request; after a half-open probe the next one has to wait for a back-off."""
        if self.state == "ejected":
            self._retry_ns = now_ns + self._backoff_ns()

    def record_success(self, now_ns: int) -> None:
        """Record that a response began."""
        self._failures = 0
        if self.state == "ejected":
            self._come_back(now_ns)

    def record_failure(self, now_ns: int, reason: str) -> bool:
        """Record a failed request; return whether the state changed."""
        self._failures += 1
        if self.state == "ejected":
            self._backoffs += 1
        elif self.state == "down" or self._failures < self._config.eject_failures:
            return False
        changed = self.state == "up"
        self._turn("ejected", now_ns, reason)
        self._retry_ns = now_ns + self._backoff_ns()
        return changed

    def check(self, now_ns: int, failure: str | None) -> bool:
        """Record an active check: None, or why it failed. Return whether the state changed."""
        self._next_check_ns = now_ns + ns_from_seconds(self._config.health_interval_seconds)
        first, self.checked = not self.checked, True
        if (failure is None) == (self.state != "down"):
            self._run = 0
            return False
        self._run += 1
        if self._run < self._needed() and not first:
            return False
        if failure is None:
            self._come_back(now_ns)
        else:
            self._turn("down", now_ns, failure)
        return True

    def unchecked(self, now_ns: int) -> None:
        """Discard the results of active checks, which were switched off."""
        self.checked = False
        if self.state == "down":
            self._come_back(now_ns)

    def weight(self, now_ns: int) -> float:
        """Return the fraction of a full share of the load: above 0, at most 1."""
        left = self.warm_ns - now_ns
        if left <= 0:
            self.warm_ns = 0
            return 1.0
        return max(_LEAST_WEIGHT, 1.0 - left / self._slow_ns())

    def next_chance_ns(self, now_ns: int) -> int:
        """The earliest time at which it may take a request, should all go well from now on."""
        if self.state == "up":
            return now_ns
        if self.state == "ejected":
            return max(self._retry_ns, now_ns)
        checks = self._needed() - self._run - 1
        between = ns_from_seconds(self._config.health_interval_seconds)
        return max(self._next_check_ns, now_ns) + max(checks, 0) * between

    def reconfigure(self, config: RelayConfig) -> None:
        """New settings; the state stays."""
        self._config = config

    def _needed(self) -> int:
        return self._config.health_successes if self.state == "down" else self._config.health_failures

    def _come_back(self, now_ns: int) -> None:
        self._turn("up", now_ns, None)
        self._failures = self._backoffs = 0
        self.warm_ns = now_ns + self._slow_ns()

    def _turn(self, state: State, now_ns: int, reason: str | None) -> None:
        if state != self.state:
            self.since_ns = now_ns
        self.state, self.reason, self._run = state, reason, 0

    def _slow_ns(self) -> int:
        return ns_from_seconds(self._config.slow_start_seconds)

    def _backoff_ns(self) -> int:
        config = self._config
        seconds = config.eject_seconds * 2.0 ** min(self._backoffs, 30)
        return ns_from_seconds(min(seconds, config.eject_max_seconds))
