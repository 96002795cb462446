"""The plan of a point: pacer, lengths and request bodies, from a ``Spec``.

``worker`` of ``workers`` sends every ``workers``-th request of one common schedule, so that N workers
together offer exactly the load that one would.
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

_SESSIONS: Final = 32  # conversations in turn, in an open loop
_WARM_CONNECTIONS: Final = 256  # opened at most before a point


@dataclass(frozen=True, slots=True)
class Inputs:
    """The contents of the input files of a run.

    Each file is read once, since a pipe cannot be read twice. ``notes`` report rows that were skipped.
    """

    items: Sequence[Item] = ()
    trace: TraceData | None = None
    tokenizer: Tokenizer | None = None
    notes: tuple[str, ...] = ()


def read_inputs(spec: Spec) -> Inputs:
    """Read the input files of a run; raises ``ValueError`` with option, file and reason."""
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


def share_of(total: int, worker: int, workers: int) -> int:
    """Return one worker's share of ``total`` items that are distributed round-robin."""
    return (total - worker + workers - 1) // workers


def plan(
    spec: Spec, level: float, worker: int = 0, workers: int = 1, trace: TraceData | None = None
) -> tuple[Lengths, Pacer]:
    """Return lengths and pacer of one level, for one of the workers.

    A trace file is read here unless ``trace`` has its contents.
    """
    lengths = Lengths(parse_length(spec.input, "--input"), parse_length(spec.output, "--output"))
    end = duration_ns(spec.duration_seconds)
    if spec.mode == "concurrency":
        own = None if spec.requests is None else share_of(spec.requests, worker, workers)
        return lengths, ClosedLoop(share_of(int(level), worker, workers), end, own)
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
    held = share_of(spec.max_in_flight, worker, workers)
    return lengths, Capped(pacer, held, ns_from_seconds(spec.drain_seconds))


def make_workload(
    spec: Spec,
    model: str,
    lengths: Lengths,
    number: int,
    items: Sequence[Item],
    tokenizer: Tokenizer | None = None,
) -> Workload:
    """Return the workload of point ``number``.

    Points have different prompts; otherwise prefix caches would favour the later ones.
    """
    return Workload(
        spec.endpoint, model, lengths,
        seed=spec.seed * 1_000_003 + number, items=items, style=style(spec), tokenizer=tokenizer,
    )  # fmt: skip


def read_tokenizer(spec: Spec) -> Tokenizer | None:
    """Return the tokenizer of ``--tokenizer``; raises ``ValueError`` if it cannot be loaded."""
    return None if spec.tokenizer is None else Tokenizer(Path(spec.tokenizer))


def style(spec: Spec) -> Style:
    """Return the properties of requests other than their lengths."""
    return Style(
        stream=spec.stream,
        exact=spec.exact_output,
        prefix_share=spec.prefix_share,
        turns=spec.turns,
        sessions=int(min(spec.levels)) if spec.mode == "concurrency" else _SESSIONS,
        picture=parse_size(spec.picture, "--picture") if spec.picture else None,
    )


def warm_connections(spec: Spec, level: float, worker: int = 0, workers: int = 1) -> int:
    """Return the number of connections to open before a point."""
    expected = level if spec.mode == "concurrency" else max(4.0, level)
    return share_of(min(int(expected), _WARM_CONNECTIONS), worker, workers)


def request_ids(run_id: str, number: int) -> str:
    """Return the prefix of the request ids of one point."""
    return f"lg-{run_id}-{number}"
