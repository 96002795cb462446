"""The interface through which a run reports its progress."""

from loadgen.drive.attack import Progress
from loadgen.results.records import Point


class View:
    """What a run tells while it goes on; the base tells nothing."""

    def note(self, text: str) -> None:
        """Something worth a line."""

    def line(self, text: str) -> None:
        """How a search gets on."""

    def watch(self, label: str, progress: Progress) -> None:
        """A probe of a search begins; ``progress`` may be read until it ends."""

    def point_started(self, label: str, progress: Progress) -> None:
        """A point begins; ``progress`` may be read until it ends."""

    def point_ended(self, point: Point) -> None:
        """A point is summarised."""
