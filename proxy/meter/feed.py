"""Data of the dashboard: the power of the last ten minutes, then the state twice a second."""

from collections import deque
from typing import Final

import msgspec

from proxy.clock import now_ns
from proxy.meter.meter import Meter
from proxy.schema import sum_parts
from proxy.units import NS_PER_MS, NS_PER_SECOND

INTERVAL_SECONDS: Final = 0.5
WINDOW_SECONDS: Final = 60.0  # of the sums by model and part
_KEPT: Final = 600  # points of the history, a second apart
_NEWEST: Final = 25  # requests in the list
_FRESH_NS: Final = 400 * NS_PER_MS  # below INTERVAL_SECONDS, so that each message has a new state


class Feed:
    """Encoded state for all open dashboards; computed at most twice a second, and only on demand."""

    def __init__(self, meter: Meter) -> None:
        self._meter = meter
        self._history: deque[tuple[int, float | None, int]] = deque(maxlen=_KEPT)
        self._state = b""
        self._made_ns = 0

    def record_point(self) -> None:
        """Append the present power and load to the history; call once a second."""
        accounts = self._meter.attributor.accounts()
        known = [account.watts for account in accounts if account.watts is not None]
        watts = sum(known) if known else None
        flight = sum(self._meter.ledger.in_flight().values())
        self._history.append((self._unix_ms(), watts, flight))

    def history(self) -> bytes:
        """Return the history as JSON, oldest point first.

        A point is ``[Unix milliseconds, watts or null, requests in flight]``.
        """
        return msgspec.json.encode(list(self._history))

    def state(self) -> bytes:
        """Return devices, terms, sums of the last minute and the newest requests as JSON."""
        t_ns = now_ns()
        if not self._state or t_ns - self._made_ns > _FRESH_NS:
            self._state, self._made_ns = self._make(t_ns), t_ns
        return self._state

    def _make(self, t_ns: int) -> bytes:
        meter = self._meter
        since = meter.anchor.unix(t_ns) - round(WINDOW_SECONDS * NS_PER_SECOND)
        recent = list(meter.ledger.records(since))
        return msgspec.json.encode(
            {
                "unix_ms": self._unix_ms(),
                "source": meter.source,
                "simulated": "simulated" in (meter.source or ""),
                "policy": meter.attributor.policy.name,
                "devices": meter.accounts(meter.attributor.accounts()),
                "terms": meter.attributor.terms(),
                "in_flight": meter.ledger.in_flight(),
                "backends": meter.backends(),
                "window_s": WINDOW_SECONDS,
                "summary": meter.ledger.summary("model", WINDOW_SECONDS, meter.anchor.unix(t_ns)),
                "parts": sum_parts(r.parts for r in recent if r.parts is not None),
                "requests": [meter.record(record.request_id) for record in recent[:_NEWEST]],
                "dropped": meter.intake.dropped,
            }
        )

    def _unix_ms(self) -> int:
        return self._meter.anchor.unix(now_ns()) // NS_PER_MS
