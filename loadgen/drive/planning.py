"""From a spec to what one generator does: its pacer, its lengths, its bodies.

``worker`` of ``workers`` takes every ``workers``-th request of the one schedule, so that N together offer
exactly what one would (Poisson processes drawn N times from one seed would repeat each gap N times).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from loadgen.config.spec import Spec
from loadgen.drive.pacer import Capped, ClosedLoop, OpenLoop, Pacer, duration_ns
from loadgen.workload.arrivals import Arrivals, Trace, make_arrivals
from loadgen.workload.datasets import Item, read_dataset
from loadgen.workload.images import parse_size
from loadgen.workload.lengths import Lengths, parse_length
from loadgen.workload.request_bodies import Style, Workload
from loadgen.workload.tokenizer import Tokenizer
from loadgen.workload.traces import TraceData, read_trace
from proxy.units import ns_from_seconds

_SESSIONS: Final = 32
_WARM_CONNECTIONS: Final = 256


@dataclass(frozen=True, slots=True)
class Inputs:
    """The files of a run, each read once: a pipe cannot be read twice. ``notes`` say what was left out."""

    items: Sequence[Item] = ()
    trace: TraceData | None = None
    tokenizer: Tokenizer | None = None
    notes: tuple[str, ...] = ()


def read_inputs(spec: Spec) -> Inputs:
    """Read the files that a run needs; raises ``ValueError`` naming option, file and what would be right."""
    trace_file = spec.arrivals.removeprefix("trace:") if spec.arrivals.startswith("trace:") else None
    if spec.workers > 1 or spec.ray is not None:
        for name in filter(None, (spec.dataset, trace_file, spec.tokenizer)):
            if Path(name).exists() and not Path(name).is_file():
                raise ValueError(f"{name}: not a regular file: several workers cannot each read it")
    data = None if spec.dataset is None else read_dataset(Path(spec.dataset), strict=spec.strict)
    trace = None if trace_file is None else read_trace(Path(trace_file), strict=spec.strict)
    notes = (*(data.notes if data is not None else ()), *(trace.notes if trace is not None else ()))
    items = data.items if data is not None else ()
    return Inputs(items, trace, read_tokenizer(spec), notes)


def part_of(whole: int, worker: int, workers: int) -> int:
    """How many of ``whole`` things, dealt out in turn, come to one of the workers."""
    return (whole - worker + workers - 1) // workers


def plan(
    spec: Spec, level: float, worker: int = 0, workers: int = 1, trace: TraceData | None = None
) -> tuple[Lengths, Pacer]:
    """Lengths and pacer of one level, for one of the workers; without ``trace`` that file is read here."""
    lengths = Lengths(parse_length(spec.input, "--input"), parse_length(spec.output, "--output"))
    end = duration_ns(spec.duration_seconds)
    if spec.mode == "concurrency":
        own = None if spec.requests is None else part_of(spec.requests, worker, workers)
        return lengths, ClosedLoop(part_of(int(level), worker, workers), end, own)
    if spec.arrivals.startswith("trace:"):
        trace = trace or read_trace(Path(spec.arrivals.removeprefix("trace:")), strict=spec.strict)
        played = trace.played(level)
        lengths = replace(lengths, pairs=played.pairs)
        arrivals: Arrivals = Trace(played.times_ns)
    else:
        arrivals = make_arrivals(spec.arrivals, level, spec.seed, spec.duration_seconds)
    pacer = OpenLoop(arrivals, end, spec.requests, worker, workers)
    if spec.max_in_flight is None:
        return lengths, pacer
    held = part_of(spec.max_in_flight, worker, workers)
    return lengths, Capped(pacer, held, ns_from_seconds(spec.drain_seconds))


def make_workload(
    spec: Spec,
    model: str,
    lengths: Lengths,
    number: int,
    items: Sequence[Item],
    tokenizer: Tokenizer | None = None,
) -> Workload:
    """Bodies of one point: points differ in their prompts, or prefix caches would favour later ones."""
    return Workload(
        spec.endpoint, model, lengths,
        seed=spec.seed * 1_000_003 + number, items=items, style=style(spec), tokenizer=tokenizer,
    )  # fmt: skip


def read_tokenizer(spec: Spec) -> Tokenizer | None:
    """The one that was asked for; raises ``ValueError`` where it cannot be used."""
    return None if spec.tokenizer is None else Tokenizer(Path(spec.tokenizer))


def style(spec: Spec) -> Style:
    """What the requests are like."""
    return Style(
        stream=spec.stream,
        exact=spec.exact_output,
        prefix_share=spec.prefix_share,
        turns=spec.turns,
        sessions=int(min(spec.levels)) if spec.mode == "concurrency" else _SESSIONS,
        picture=parse_size(spec.picture, "--picture") if spec.picture else None,
    )


def warm_connections(spec: Spec, level: float, worker: int = 0, workers: int = 1) -> int:
    """How many connections to open before a point."""
    expected = level if spec.mode == "concurrency" else max(4.0, level)
    return part_of(min(int(expected), _WARM_CONNECTIONS), worker, workers)


def request_ids(run_id: str, number: int) -> str:
    """The beginning of the ids of one point's requests."""
    return f"lg-{run_id}-{number}"
