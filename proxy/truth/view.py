"""A timeline as columns, for formulas that need no more than windows of energy and token counts.

Built from events alone: no estimator is involved, so that a formula of the field gets what its own tool would
read from a driver and from the usage of the responses.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from proxy.core.events import Arrive, End, Event, Output, Sample

Floats = NDArray[np.float64]
_NS = 1e9


@dataclass(slots=True)
class Request:
    """One request as a tool on the wire sees it; seconds, tokens. A token count that is unknown is 0."""

    name: str
    start_s: float
    end_s: float
    devices: tuple[str, ...]
    prompt: int = 0
    output: int = 0
    times: list[float] = field(default_factory=list)  # of its chunks
    counts: list[int] = field(default_factory=list)  # tokens of each chunk


@dataclass(frozen=True, slots=True)
class Windows:
    """Energy of one device between readings: W windows that follow each other."""

    device: str
    edges: Floats  # (W + 1,) seconds
    joules: Floats  # (W,)


@dataclass(frozen=True, slots=True)
class View:
    """All requests of a timeline, and the windows of each device."""

    requests: list[Request]
    windows: list[Windows]

    def on(self, device: str) -> list[Request]:
        """Return the requests that may have computed on a device."""
        return [r for r in self.requests if device in r.devices]

    @property
    def joules(self) -> float:
        """Measured joules of all devices."""
        return float(sum(w.joules.sum() for w in self.windows))


def read(events: Iterable[Event]) -> View:
    """Return the columns of a timeline."""
    requests: dict[str, Request] = {}
    counters: dict[str, list[tuple[float, float | None, float | None]]] = {}
    for event in events:
        if isinstance(event, Arrive):
            t = event.t_ns / _NS
            requests[event.request] = Request(event.request, t, t, event.devices)
        elif isinstance(event, Output):
            request = requests[event.request]
            request.times.append(event.t_ns / _NS)
            request.counts.append(1 if event.tokens is None else event.tokens)
        elif isinstance(event, End):
            _end(requests[event.request], event)
        elif isinstance(event, Sample):
            reading = (event.t_ns / _NS, event.energy_mj, event.power_mw)
            counters.setdefault(event.device, []).append(reading)
    return View(list(requests.values()), [_windows(d, rows) for d, rows in counters.items()])


def _end(request: Request, event: End) -> None:
    request.end_s = event.t_ns / _NS
    request.prompt = event.prompt_tokens or 0
    request.output = sum(request.counts) if event.completion_tokens is None else event.completion_tokens


def _windows(device: str, rows: list[tuple[float, float | None, float | None]]) -> Windows:
    edges = np.array([t for t, _, _ in rows])
    if rows[0][1] is not None:
        joules = np.diff(np.array([energy or 0.0 for _, energy, _ in rows])) / 1e3
    else:
        joules = np.array([(power or 0.0) / 1e3 for _, _, power in rows[1:]]) * np.diff(edges)
    return Windows(device, edges, joules)


def overlaps(requests: list[Request], windows: Windows) -> Floats:
    """Return the seconds that each request was open in each window, (R, W)."""
    start = np.array([r.start_s for r in requests])[:, None]
    end = np.array([r.end_s for r in requests])[:, None]
    seconds = np.minimum(end, windows.edges[None, 1:]) - np.maximum(start, windows.edges[None, :-1])
    return np.asarray(np.maximum(seconds, 0.0))


def tokens(requests: list[Request], windows: Windows, prompt: float, output: float) -> Floats:
    """Return the weighted tokens of each request in each window, (R, W).

    Prompt tokens count in the window of the first chunk, output tokens in that of their chunk; tokens that
    were not streamed count in the window of the end. ``prompt`` and ``output`` are the weights of a token.
    """
    table = np.zeros((len(requests), len(windows.joules)))
    last = len(windows.joules) - 1
    for row, request in enumerate(requests):
        times = np.array([*request.times, request.end_s])
        rest = max(request.output - sum(request.counts), 0)
        weights = np.array([*request.counts, rest], float) * output
        weights[0] += request.prompt * prompt
        at = np.clip(np.searchsorted(windows.edges, times, side="right") - 1, 0, last)
        np.add.at(table[row], at, weights)
    return table


def split(view: View, shares: list[Floats]) -> dict[str, float]:
    """Return the joules of each request: windows of each device times its (R, W) ``shares``, summed."""
    joules = {request.name: 0.0 for request in view.requests}
    for windows, share in zip(view.windows, shares, strict=True):
        for request, own in zip(view.on(windows.device), (share @ windows.joules).tolist(), strict=True):
            joules[request.name] += own
    return joules


def normalised(weights: Floats) -> Floats:
    """Return weights (R, W) divided by their sum in each window; a window without any stays unattributed."""
    total = weights.sum(axis=0)
    return np.asarray(np.divide(weights, total, out=np.zeros_like(weights), where=total > 0.0))
