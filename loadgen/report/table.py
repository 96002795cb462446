"""Points as rows of text, for the terminal, the report and plain logs."""

from loadgen.results.records import Distribution, Knee, Point, Run

COLUMNS = (
    "load", "req/s", "goodput/s", "TTFT p50", "p95", "p99", "TPOT p50", "p99", "E2E p50", "p99",
    "failed", "W", "J/req", "tok/J", "SLO",
)  # fmt: skip


def cells(point: Point) -> list[str]:
    """One point, in the order of ``COLUMNS``; a dash is not known."""
    load = f"{point.concurrency}" if point.concurrency is not None else f"{point.rate:g}/s"
    return [
        load,
        number(point.requests_per_second),
        number(point.goodput_per_second),
        *_ms(point.ttft_seconds, "p50", "p95", "p99"),
        *_ms(point.tpot_seconds, "p50", "p99"),
        *_ms(point.e2e_seconds, "p50", "p99"),
        f"{point.failed}/{point.requests}",
        number(point.watts),
        number(point.joules_per_request),
        number(point.tokens_per_joule),
        slo_text(point),
    ]


def slo_text(point: Point) -> str:
    """The verdict of one point; a question mark where the sample leaves it open."""
    if point.generator_bound:
        return "generator!"
    if point.slo_met is None:
        return "-"
    word = "met" if point.slo_met else "missed"
    unsure = "?" if point.slo_confidence == "undecided" else ""
    return word + unsure + ("" if point.stable else ", unstable")


def number(value: float | None) -> str:
    """Three digits; a dash for None."""
    if value is None:
        return "-"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _ms(found: Distribution, *names: str) -> list[str]:
    values = [getattr(found, name) for name in names]
    return [number(None if value is None else value * 1e3) for value in values]


def knee_text(knee: Knee) -> str:
    """What a search found, in words."""
    unit = "req/s" if knee.kind == "rate" else "at once"
    if knee.level is None:
        return f"no knee found: {knee.reason}"
    span = f" (95 %: {number(knee.low)} to {number(knee.high)})"
    return f"knee at {number(knee.level)} {unit}{span} in {knee.seconds:.0f} s"


def headline(run: Run) -> str:
    """The verdict in a sentence."""
    slo = run.spec.get("slo")
    asked = f" (SLO {slo})" if slo else ""
    failed = any(point.failed for point in run.points)
    why = "requests failed" if failed else "no point was stable: queues grew"
    said = {
        "pass": "PASS" + asked if slo else "DONE: no SLO was given (--slo), so nothing was judged",
        "fail": "FAIL: the SLO is missed" + asked if slo else f"FAIL: {why}",
        "generator-bound": "GENERATOR-BOUND: this machine could not drive the load; do not use the"
        " numbers of that point",
        "interrupted": "INTERRUPTED: partial results",
    }[run.verdict]
    if run.knee is not None:
        said += "; " + knee_text(run.knee)
    if run.best is None or len(run.points) < 2:
        return said
    best = run.points[run.best]
    load = f"concurrency {best.concurrency}" if best.concurrency else f"{best.rate:g} req/s"
    power = f", {number(best.tokens_per_joule)} tokens/J" if best.tokens_per_joule else ""
    return f"{said}; best point: {load}, {number(best.requests_per_second)} req/s{power}"
