"""An engine's own counters, compared with what passed through the proxy. Pure.

vLLM tells on ``/metrics`` how many requests run and wait, and how many tokens it made so far. Requests that
are in the engine and not ours came another way: their share of the running batch is their share of the energy
(batched requests take part in the same steps). The scrape and our own view are not of the same instant, so
only what exceeds the *most* we had in flight since the last scrape is called unseen, at both of its ends.
While nothing of ours is there, any token made is another's.
"""

from dataclasses import dataclass
from typing import Final

from prometheus_client.parser import text_string_to_metric_families

_RUNNING: Final = "vllm:num_requests_running"
_WAITING: Final = "vllm:num_requests_waiting"
_TOKENS: Final = "vllm:generation_tokens_total"
_NAMES: Final = (_RUNNING, _WAITING, _TOKENS)


@dataclass(frozen=True, slots=True)
class EngineState:
    """One scrape, summed over the engines and models of a server."""

    running: float
    waiting: float
    generated_tokens: float


@dataclass(frozen=True, slots=True)
class OurState:
    """What the proxy had of a backend: requests in flight at most since the last look."""

    most_in_flight: int


@dataclass(frozen=True, slots=True)
class Unseen:
    """What did not pass through, between two scrapes: its share of the engine's work, and of its tokens."""

    share: float
    requests: float
    tokens: float


def parse_metrics(page: str) -> EngineState | None:
    """The state on a metrics page; None where it is no vLLM's. Raises ``ValueError`` for what is no page."""
    sums: dict[str, float] = {}
    lines = [line for line in page.split("\n") if line.startswith(_NAMES)]  # a page has a thousand others
    for family in text_string_to_metric_families("\n".join(lines)):
        for sample in family.samples:
            if sample.name in _NAMES:
                sums[sample.name] = sums.get(sample.name, 0.0) + sample.value
    if _RUNNING not in sums:
        return None
    return EngineState(sums[_RUNNING], sums.get(_WAITING, 0.0), sums.get(_TOKENS, 0.0))


class Comparison:
    """Feed pairs of views in turn; says what was unseen between the last two."""

    __slots__ = ("_excess", "_last")

    def __init__(self) -> None:
        self._last: tuple[EngineState, OurState] | None = None
        self._excess: float | None = None

    def feed(self, engine: EngineState, ours: OurState) -> Unseen | None:
        """None at first, and where the engine was started anew."""
        excess = max(engine.running + engine.waiting - ours.most_in_flight, 0.0)
        last, before = self._last, self._excess
        self._last, self._excess = (engine, ours), excess
        if last is None or before is None or engine.generated_tokens < last[0].generated_tokens:
            return None
        made = engine.generated_tokens - last[0].generated_tokens
        if ours.most_in_flight == 0 and last[1].most_in_flight == 0:  # nothing of ours for long: exact
            return Unseen(1.0 if made or min(excess, before) else 0.0, excess, made)
        steady = min(excess, before)
        inside = max(min(engine.running + engine.waiting, last[0].running + last[0].waiting), 1.0)
        share = min(steady / inside, 1.0)
        return Unseen(share, steady, made * share)
