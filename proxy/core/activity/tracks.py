"""Tracks: what is known of each request, from its arrival to its final share; groups of them."""

from dataclasses import dataclass, field
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from proxy.core.activity.outputs import Outputs, Streams
from proxy.core.events import Arrive, End, Span, Step

LEAST_MARGIN_NS = 250_000_000
_MARGIN_STEPS = 3.0


@dataclass(slots=True)
class Charge:
    """Joules of one request on one device.

    ``life``: joules of all work of its group while it lived; ``misfit``: its joules times the squared
    relative mismatch of model and meter in their windows; ``young``: its joules times the youth of the model,
    from 1 (knows nothing) to 0; ``guessed``: its joules that may as well be others', as nothing was
    read of it or of those beside it; ``terms``: standard deviation by the doubt of the fitted terms.
    """

    joules: float = 0.0
    life: float = 0.0
    misfit: float = 0.0
    young: float = 0.0
    guessed: float = 0.0
    terms: float = 0.0

    def add(
        self,
        joules: float,
        life: float,
        misfit: float,
        youth: float,
        guessed: float = 0.0,
        terms: float = 0.0,
    ) -> None:
        """Add one block's."""
        self.joules += joules
        self.life += life
        self.misfit += misfit
        self.young += joules * youth
        self.guessed += guessed
        self.terms += terms


@dataclass(slots=True)
class Track:
    """One request: what was seen of it, and what it was charged.

    Stamps in ns; charges by device; ``parts`` in joules (static, decode, context, prefill), ``unsure`` those
    of them that are not told from the others by the data; joules of no known part are ``unseparated``.
    """

    arrive: Arrive
    slot: int = 0
    end: End | None = None
    span: Span | None = None
    evidence: str = "chunks"
    decoded: int = 0  # decode steps in closed windows, where the engine reports its steps
    engine_guessed: bool = False  # which engine of its backend served it
    job: bool = False  # its answer came, and its work goes on unseen
    tracked: bool = False  # a job of which spans report when its work began
    reported: bool = False  # in any of these steps
    prefilled: int = 0  # prompt tokens computed in them
    charges: dict[str, Charge] = field(default_factory=dict)
    parts: NDArray[np.float64] = field(default_factory=lambda: np.zeros(4))
    unsure: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(4, bool))
    unseparated: float = 0.0
    prompt_doubt: float = 0.0  # standard deviation of the computed part of the prompt, relative to it

    @property
    def start_ns(self) -> int:
        """When the request was sent to its backend."""
        return self.arrive.t_ns

    @property
    def end_ns(self) -> int | None:
        """When the answer ended; None while it runs."""
        return self.end.t_ns if self.end else None

    @property
    def prompt_tokens(self) -> int | None:
        """Return the prompt's length as the engine reported it; None where it did not."""
        return self.end.prompt_tokens if self.end else None


class Role(Enum):
    """The part of its requests that an engine computes: prompts, output tokens, or both."""

    BOTH = "both"
    PREFILL = "prefill"
    DECODE = "decode"


class Group:
    """The requests on one engine: tracks by slot, and their outputs that are still needed.

    A backend is one engine until several are found behind it (``engines``).

    Outputs are kept a while beyond the closed windows: the steps around a boundary, and the prompt that is
    half computed there, must look the same from both of its sides.
    """

    __slots__ = (
        "devices", "engines", "kept_ns", "key", "neighbours", "outputs", "role", "step_seconds", "steps",
        "streams", "tracks", "unresolved",
    )  # fmt: skip

    def __init__(self, key: tuple[str, ...], devices: tuple[str, ...], streams: Streams) -> None:
        self.key = key
        self.devices = devices
        self.streams = streams
        self.neighbours: list[Group] = []  # other groups on its devices
        self.outputs = Outputs()
        self.steps: list[Step] = []
        self.tracks: dict[int, Track] = {}
        self.engines: list[Group] = []  # that were found behind a backend, which have its outputs
        self.role = Role.BOTH
        self.unresolved = False  # several engines on several devices that could not be separated
        self.kept_ns = 0
        self.step_seconds = 0.0

    def within(self, start_ns: int, end_ns: int) -> list[Track]:
        """Tracks with a part of their life in [start_ns, end_ns)."""
        return [
            t
            for t in self.tracks.values()
            if t.start_ns < end_ns and (t.end is None or t.end.t_ns >= start_ns)
        ]

    def view(self, boundary_ns: int) -> tuple[int, int]:
        """From and until when outputs tell of the steps at a boundary.

        Of the prompts that had arrived there one may be half computed: the next to be finished.
        """
        margin = max(LEAST_MARGIN_NS, round(_MARGIN_STEPS * self.step_seconds * 1e9))
        slots = np.fromiter(self.tracks, np.int64, len(self.tracks))
        first = self.streams.first_ns[slots]
        arrived = self.streams.start_ns[slots]
        ahead = (first > boundary_ns) & (arrived < boundary_ns)
        if not ahead.any():
            return boundary_ns - margin, boundary_ns + margin
        finished = int(first[ahead].min())
        before = first[(first >= 0) & (first <= boundary_ns)]
        began = int(arrived[ahead & (first == finished)].min())
        began = max(began, int(before.max()) if len(before) else began)
        return min(boundary_ns - margin, began), max(boundary_ns + margin, finished)

    def forget(self, kept_ns: int) -> None:
        """Drop outputs and steps at or before ``kept_ns``."""
        self.kept_ns = kept_ns
        slots, tokens = self.outputs.forget(kept_ns)
        np.add.at(self.streams.forgotten, slots, np.abs(tokens))
        if self.steps:
            self.steps = [step for step in self.steps if step.t_ns > kept_ns]
