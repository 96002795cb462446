"""The contract of an exporter: a hook on one frozen record. A failing one is logged and counted, no more."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from proxy.clock import WallAnchor
from proxy.core.request_events import RequestEnd, RequestStart
from proxy.schema import RequestEnergy

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Finished:
    """A final record, and what the relay said of the call. ``anchor`` turns stamps into Unix time."""

    record: RequestEnergy
    start: RequestStart
    end: RequestEnd
    first_output_ns: int | None
    anchor: WallAnchor

    @property
    def refused(self) -> bool:
        """Whether backend or proxy refused the request, or its client left, before any output."""
        record = self.record
        if self.first_output_ns is not None or record.output_tokens:
            return False
        return record.status is None or record.status >= 400


class Exporter(Protocol):
    """Shows finished records to one outside system."""

    name: str

    def export(self, finished: Finished) -> None:
        """Take a record; must not block."""

    def close(self) -> None:
        """Hand over what is held, give resources back."""


class Exporters:
    """Several exporters as one; none can hurt another or the meter."""

    def __init__(self, exporters: Sequence[Exporter]) -> None:
        self._exporters = exporters
        self.failures: dict[str, int] = {}

    def export(self, finished: Finished) -> None:
        """Give the record to each."""
        for exporter in self._exporters:
            try:
                exporter.export(finished)
            except Exception:  # noqa: BLE001 - the top of each exporter's work
                self._failed(exporter)

    def close(self) -> None:
        """Close each."""
        for exporter in self._exporters:
            try:
                exporter.close()
            except Exception:  # noqa: BLE001 - as above
                self._failed(exporter)

    def _failed(self, exporter: Exporter) -> None:
        count = self.failures[exporter.name] = self.failures.get(exporter.name, 0) + 1
        if count & (count - 1) == 0:  # the 1st, 2nd, 4th, 8th, ...: a full disk must not fill a log too
            _log.exception("exporter %s failed, %d times by now", exporter.name, count)
