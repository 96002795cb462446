"""The summary of one point from the records of its attack. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from loadgen.config.slo import Objective, meets, tightest_seconds
from loadgen.measure import metrics
from loadgen.measure.window import Window, drift_seconds_per_second, in_flight
from loadgen.results.records import EnergyTotals, Point, Record
from proxy.units import NS_PER_SECOND

# The generator is the bottleneck if its own delays (p95) exceed the larger of these two:
_LAG_FLOOR_S = 0.005
_LAG_SHARE = 0.05  # of the tightest limit of the SLO
_CPU_LIMIT = 0.95  # of one core, as it has one thread


@dataclass(frozen=True, slots=True)
class Measured:
    """The input of a summary: one attack, its measurement window and its energy."""

    concurrency: int | None
    rate: float | None
    records: Sequence[Record]
    window: Window
    lags_ns: Sequence[int] = ()
    cpu_share: float | None = None
    capped: int = 0
    energy: EnergyTotals | None = None
    idle_watts: float | None = None
    notes: Sequence[str] = ()


def summarize(measured: Measured, slo: Sequence[Objective]) -> Point:
    """Return the point as saved in ``run.json``.

    Latencies are those of requests scheduled in the window; throughput counts requests that ended in it.
    """
    window, records = measured.window, measured.records
    chosen = [r for r in records if window.holds(r.scheduled_ns)]
    ended = [r for r in records if r.ok and window.holds(r.end_ns)]
    seconds = window.seconds
    judged = metrics.judge(records, window, slo)
    # Goodput counts requests that ended in the window, like throughput, but only those that meet the SLO.
    good = None
    if judged is not None:
        good = sum(meets(metrics.latencies(r), slo) for r in ended) / seconds
    tokens = _tokens_in(records, window)
    achieved, cv = metrics.pacing(chosen)
    peak, mean_level = in_flight(records, window)
    drift = drift_seconds_per_second(records, window)
    bound = generator_bound(measured, chosen, slo)
    images = [r.images for r in ended if r.images is not None]
    return Point(
        concurrency=measured.concurrency,
        rate=measured.rate,
        requests=len(chosen),
        failed=sum(not r.ok for r in chosen),
        duration_seconds=seconds,
        window_seconds=(window.start_ns / NS_PER_SECOND, window.end_ns / NS_PER_SECOND),
        requests_per_second=len(ended) / seconds if seconds > 0 else 0.0,
        goodput_per_second=good,
        output_tokens_per_second=None if tokens is None else tokens / seconds,
        achieved_rate=achieved,
        gap_cv=cv,
        max_in_flight=peak,
        mean_in_flight=mean_level,
        cpu_share=measured.cpu_share,
        images_per_second=sum(images) / seconds if images else None,
        slo_met=None if judged is None else judged.met,
        slo_confidence=None if judged is None else judged.confidence,
        stable=drift is None,
        generator_bound=bound is not None,
        notes=_notes(measured, judged, drift, bound),
        **_latencies(chosen),
        **_energy(measured, len(ended), tokens, sum(images) or None, good),
    )


def _latencies(chosen: Sequence[Record]) -> dict[str, Any]:
    of = metrics.values
    sent = [r for r in chosen if r.sent_ns is not None]
    return {
        "ttft_seconds": metrics.distribution(of(chosen, metrics.ttft)),
        "ttft_from_sent_seconds": metrics.distribution(of(chosen, lambda r: metrics.ttft(r, from_sent=True))),
        "tpot_seconds": metrics.distribution(of(chosen, metrics.tpot)),
        "itl_seconds": metrics.distribution([g for r in chosen if r.ok for g in metrics.gaps(r)]),
        "e2e_seconds": metrics.distribution(of(chosen, metrics.e2e)),
        "e2e_from_sent_seconds": metrics.distribution(of(chosen, lambda r: metrics.e2e(r, from_sent=True))),
        "late_seconds": metrics.distribution(
            [((r.sent_ns or 0) - r.scheduled_ns) / NS_PER_SECOND for r in sent]
        ),
        "lag_seconds": metrics.distribution(
            [(r.dispatched_ns - r.scheduled_ns) / NS_PER_SECOND for r in chosen]
        ),
    }


def _tokens_in(records: Sequence[Record], window: Window) -> float | None:
    """Return the output tokens that arrived in the window; None if no request reports tokens.

    The tokens of a request are distributed over its output stamps in proportion to their chunks.
    """
    found, known = 0.0, False
    for record in records:
        n, chunks = record.output_tokens, sum(record.counts)
        if n is None or not record.ok:
            continue
        known = True
        if not chunks:
            found += n if window.holds(record.end_ns) else 0
            continue
        pairs = zip(record.outputs_ns, record.counts, strict=True)
        found += n * sum(count for t, count in pairs if window.holds(t)) / chunks
    return found if known else None


def _energy(
    measured: Measured, ended: int, tokens: float | None, images: int | None, good: float | None
) -> dict[str, Any]:
    found = measured.energy
    if found is None:
        return {"idle_watts": measured.idle_watts}
    watts = found.joules / found.seconds
    return {
        "watts": watts,
        "joules": found.joules,
        "joules_per_request": found.joules / ended if ended else None,
        "joules_per_output_token": found.joules / tokens if tokens else None,
        "tokens_per_joule": tokens / found.joules if tokens and found.joules else None,
        "images_per_joule": images / found.joules if images and found.joules else None,
        "goodput_per_watt": good / watts if good is not None and watts else None,
        "parts_joules": found.parts,
        "energy_source": found.source,
        "idle_watts": measured.idle_watts,
    }


def generator_bound(
    measured: Measured,
    chosen: Sequence[Record],
    slo: Sequence[Objective],
) -> str | None:
    """Return why the load generator itself was the bottleneck; None if it was not.

    Its own delays are those from scheduled to dispatched (not the wait for a connection, which is caused by
    the server) and those of the event loop. Each is compared, at the 95th percentile, with 5 ms or a
    twentieth of the tightest limit.
    """
    limit = max(_LAG_FLOOR_S, _LAG_SHARE * (tightest_seconds(slo) or 0.0))
    lags = [(r.dispatched_ns - r.scheduled_ns) / NS_PER_SECOND for r in chosen]
    own = metrics.distribution(lags).p95
    if measured.capped == 0 and own is not None and own > limit:
        return f"requests went out {own * 1e3:.1f} ms late (p95): this machine cannot sustain the rate"
    loop = metrics.distribution([lag / NS_PER_SECOND for lag in measured.lags_ns]).p95
    if loop is not None and loop > limit:
        return f"the event loop lagged {loop * 1e3:.1f} ms (p95)"
    if (measured.cpu_share or 0) > _CPU_LIMIT:
        return f"the generator used {measured.cpu_share:.0%} of a core"
    return None


def _notes(
    measured: Measured, judged: metrics.Judgement | None, drift: float | None, bound: str | None
) -> list[str]:
    notes = [*measured.window.notes, *measured.notes]
    if bound:
        notes.append("generator-bound: " + bound)
    if drift is not None:
        notes.append(f"not stable: latency grows by {drift * 1e3:.0f} ms each second")
    if measured.capped:
        notes.append(f"--max-in-flight delayed requests {measured.capped} times")
    if judged is not None and judged.confidence == "undecided":
        notes.append(f"SLO verdict not significant at 95 % with {judged.total} requests")
    failures = [r.error for r in measured.records if r.error]
    if failures:
        common = max(set(failures), key=failures.count)
        notes.append(f"{len(failures)} failed, most often: {common}")
    return notes
