"""An engine's own counters, compared with the requests that passed through the proxy. Pure.

An engine reports on ``/metrics`` how many requests run and wait, and how many tokens it has generated.
Requests that are in the engine and not in the proxy came another way: their share of the running batch is
their share of the energy, because batched requests take part in the same steps. The scrape and the proxy's
count are not of the same instant, so only the excess over the *largest* number of requests that the proxy had
in flight since the last scrape counts as unseen, and only if it lasts from one scrape to the next. While the
proxy has no request in the engine, every generated token is another client's.

``ENGINES`` is the register of engines: a new one costs one entry, see ``docs/extending.md``.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from prometheus_client.parser import text_string_to_metric_families


@dataclass(frozen=True, slots=True)
class EngineMetrics:
    """Names of the metrics that an engine reports; values of all label sets are summed.

    Attributes:
        engine: Name of the engine, for readers.
        running: Gauge of the requests in the running batch. A page without it is not of this engine.
        waiting: Gauge of the requests in the queue; 0 if it is missing.
        generated_tokens: Counter of output tokens; a decrease means that the engine was restarted.
    """

    engine: str
    running: str
    waiting: str
    generated_tokens: str


ENGINES: Final = (
    EngineMetrics(
        "vLLM",
        running="vllm:num_requests_running",
        waiting="vllm:num_requests_waiting",
        generated_tokens="vllm:generation_tokens_total",
    ),
)


@dataclass(frozen=True, slots=True)
class EngineState:
    """One scrape, summed over the engine instances and models of a server."""

    running: float
    waiting: float
    generated_tokens: float


@dataclass(frozen=True, slots=True)
class OurState:
    """The proxy's own count for a backend: the most requests in flight since the last scrape."""

    most_in_flight: int


@dataclass(frozen=True, slots=True)
class Unseen:
    """Work between two scrapes that did not pass through the proxy.

    Attributes:
        share: Its share of the engine's work, 0 to 1.
        requests: Number of such requests.
        tokens: Estimate of the tokens generated for them.
    """

    share: float
    requests: float
    tokens: float


def parse_metrics(page: str, engines: Sequence[EngineMetrics] = ENGINES) -> EngineState | None:
    """Return the state on a metrics page in Prometheus' text format; None if it is of no known engine.

    Raises:
        ValueError: for a page that cannot be parsed.
    """
    names = {name for e in engines for name in (e.running, e.waiting, e.generated_tokens)}
    wanted = tuple(names)
    lines = [line for line in page.split("\n") if line.startswith(wanted)]  # a page has a thousand others
    sums: dict[str, float] = {}
    for family in text_string_to_metric_families("\n".join(lines)):
        for sample in family.samples:
            if sample.name in names:
                sums[sample.name] = sums.get(sample.name, 0.0) + sample.value
    for e in engines:
        if e.running in sums:
            return EngineState(sums[e.running], sums.get(e.waiting, 0.0), sums.get(e.generated_tokens, 0.0))
    return None


class Comparison:
    """Compares successive pairs of scrapes and own counts; call ``feed`` once for each scrape."""

    __slots__ = ("_excess", "_last")

    def __init__(self) -> None:
        self._last: tuple[EngineState, OurState] | None = None
        self._excess: float | None = None

    def feed(self, engine: EngineState, ours: OurState) -> Unseen | None:
        """Return the unseen work since the last call; None at first and after a restart of the engine."""
        excess = max(engine.running + engine.waiting - ours.most_in_flight, 0.0)
        last, before = self._last, self._excess
        self._last, self._excess = (engine, ours), excess
        if last is None or before is None or engine.generated_tokens < last[0].generated_tokens:
            return None
        made = engine.generated_tokens - last[0].generated_tokens
        if ours.most_in_flight == 0 and last[1].most_in_flight == 0:  # no own request: exact
            return Unseen(1.0 if made or min(excess, before) else 0.0, excess, made)
        steady = min(excess, before)
        inside = max(min(engine.running + engine.waiting, last[0].running + last[0].waiting), 1.0)
        share = min(steady / inside, 1.0)
        return Unseen(share, steady, made * share)
