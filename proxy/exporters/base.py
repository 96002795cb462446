"""The contract of an exporter: a hook on one frozen record. Failures are logged and counted, never raised."""

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
    """A final record with start and end of its request; ``anchor`` converts stamps to Unix time."""

    record: RequestEnergy
    start: RequestStart
    end: RequestEnd
    first_output_ns: int | None
    anchor: WallAnchor

    @property
    def refused(self) -> bool:
        """Whether the request was refused, or its client disconnected, before any output."""
        record = self.record
        if self.first_output_ns is not None or record.output_tokens:
            return False
        return record.status is None or record.status >= 400


class Exporter(Protocol):
    """Sends finished records to one external system."""

    name: str

    def export(self, finished: Finished) -> None:
        """Export one record; must not block. An exception is logged and counted by the caller."""

    def close(self) -> None:
        """Flush buffered records and release resources."""


class Exporters:
    """Calls several exporters in turn; a failure of one affects neither the others nor the meter."""

    def __init__(self, exporters: Sequence[Exporter]) -> None:
        self._exporters = exporters
        self.failures: dict[str, int] = {}

    def export(self, finished: Finished) -> None:
        """Call every exporter with the record."""
        for exporter in self._exporters:
            try:
                exporter.export(finished)
            except Exception:  # noqa: BLE001 - the top of each exporter's work
                self._failed(exporter)

    def close(self) -> None:
        """Close every exporter."""
        for exporter in self._exporters:
            try:
                exporter.close()
            except Exception:  # noqa: BLE001 - as above
                self._failed(exporter)

    def _failed(self, exporter: Exporter) -> None:
        count = self.failures[exporter.name] = self.failures.get(exporter.name, 0) + 1
        if count & (count - 1) == 0:  # the 1st, 2nd, 4th, 8th, ...: a full disk must not flood the log
            _log.exception("exporter %s failed (failure number %d)", exporter.name, count)
