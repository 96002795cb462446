"""The interface through which a run reports its progress."""

from loadgen.drive.attack import Progress
from loadgen.results.records import Point


class View:
    """Receives the progress of a run; the methods of this base class do nothing."""

    def note(self, text: str) -> None:
        """Receive a note, which is part of the run as well."""

    def line(self, text: str) -> None:
        """Receive the result of a probe of a search."""

    def watch(self, label: str, progress: Progress) -> None:
        """Receive the start of a probe of a search; ``progress`` is updated until it ends."""

    def point_started(self, label: str, progress: Progress) -> None:
        """Receive the start of a point; ``progress`` is updated until it ends."""

    def point_ended(self, point: Point) -> None:
        """Receive the summary of a point."""
