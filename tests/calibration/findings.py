"""A finding beside ours: rows of a Markdown table."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Row:
    """A finding: what it is, the published (or otherwise expected) number and ours."""

    finding: str
    published: float
    ours: float
    unit: str = "x"

    def line(self) -> str:
        """As Markdown."""
        ratio = self.ours / self.published
        theirs, ours = (f"{value:.3g} {self.unit}" for value in (self.published, self.ours))
        return f"| {self.finding} | {theirs} | {ours} | {ratio:.2f} |"


def table(rows: Iterable[Row], more: Sequence[str] = (), *, titles: str = "published | simulated") -> str:
    """The rows with their titles."""
    head = [f"| finding | {titles} | ratio |", "|---|---:|---:|---:|"]
    return "\n".join([*head, *(row.line() for row in rows), *more])
