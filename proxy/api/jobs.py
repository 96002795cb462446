"""Jobs: requests that are answered at once while their work goes on, such as videos.

Shapes: OpenAI's video API (``POST /v1/videos`` and ``/v1/videos/{id}/remix``; ``GET`` and ``DELETE`` of
``/v1/videos/{id}``; ``/content``), which vLLM-Omni and SGLang's diffusion server follow. They differ in the
names of states and in which fields of the result they report.
"""

import re
from typing import Final, NamedTuple

import msgspec

from proxy.api.lenient import LenientDecoder

_PATH: Final = re.compile(r"/videos/([^/]{1,500})(?:/(content|remix))?$")
_ID: Final = re.compile(r"[\w.~:@!$&'()*+,;=-]{1,500}", re.ASCII)  # characters of a path segment, RFC 3986
_NOT_IDS: Final = frozenset(("edits", "extensions", "characters", "sync"))  # further endpoints

_WAITING: Final = frozenset(("queued", "pending", "waiting", "submitted", "created"))
_COMPLETED: Final = frozenset(("completed", "succeeded", "success", "done", "finished"))
_CANCELLED: Final = frozenset(("cancelled", "canceled", "aborted", "deleted"))
_FAILED: Final = frozenset(("failed", "error", "expired"))
_SIZE: Final = re.compile(r"([0-9]{1,6})\s*[xX*]\s*([0-9]{1,6})")


class JobPath(NamedTuple):
    """A request about a job; ``reports``: its response is the job's state."""

    id: str
    reports: bool


class JobState(msgspec.Struct, gc=False):
    """The fields of a job that are read, in the response to its POST and to a GET of it."""

    id: str | None = None
    status: str | None = None
    progress: float | None = None  # percent
    deleted: bool | None = None
    size: str | None = None
    seconds: float | None = None
    num_frames: int | None = None
    num_inference_steps: int | None = None

    @property
    def has_usable_id(self) -> bool:
        """Whether its id is a path segment as it is: the proxy polls with it, and so do clients."""
        return self.id is not None and _ID.fullmatch(self.id) is not None

    @property
    def waits(self) -> bool:
        """Whether its work has not begun."""
        return self._name in _WAITING

    @property
    def completed(self) -> bool:
        """Whether it has its result."""
        return self._name in _COMPLETED

    @property
    def cancelled(self) -> bool:
        """Whether it was cancelled or deleted."""
        return self.deleted is True or self._name in _CANCELLED

    @property
    def failed(self) -> bool:
        """Whether it ended without a result."""
        return self._name in _FAILED

    @property
    def runs(self) -> bool:
        """Whether it has a state that is not an end; a name that is not listed here is none."""
        return self.status is not None and not (self.completed or self.cancelled or self.failed)

    @property
    def done_fraction(self) -> float | None:
        """How much of the work is done, from 0 to 1; None where it is not reported."""
        return min(max(self.progress / 100.0, 0.0), 1.0) if self.progress is not None else None

    @property
    def pixels(self) -> int | None:
        """Width times height; None where the size is not known."""
        found = _SIZE.fullmatch(self.size.strip()) if self.size else None
        return int(found[1]) * int(found[2]) if found else None

    @property
    def _name(self) -> str:
        return (self.status or "").strip().lower()


_DECODER: Final = LenientDecoder(JobState)


def read_job(document: bytes) -> JobState | None:
    """Return the state of a job; None where the document has none."""
    state = _DECODER.decode(document, [])
    return state if state is not None and (state.status is not None or state.deleted is not None) else None


def job_path_of(method: str, path: str) -> JobPath | None:
    """Return which job a request is about; None where it is about none. ``path``: without the query."""
    if "/videos/" not in path:
        return None
    found = _PATH.search(path.rstrip("/"))
    if found is None or found[1] in _NOT_IDS:
        return None
    return JobPath(found[1], found[2] is None and method in {"GET", "DELETE"})
