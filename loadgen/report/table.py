"""Points as rows of text, for the terminal and the HTML page. Pure."""

from loadgen.results.records import Distribution, Knee, Point, Run

COLUMNS = (
    "load", "req/s", "goodput/s", "TTFT p50", "p95", "p99", "TPOT p50", "p99", "E2E p50", "p99",
    "failed", "W", "J/req", "tok/J", "SLO",
)  # fmt: skip


def row(point: Point) -> list[str]:
    """Return the cells of a point in the order of ``COLUMNS``; a dash is an unknown value."""
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
    """Return the verdict of one point; a question mark if the sample is too small to decide."""
    if point.generator_bound:
        return "generator!"
    if point.slo_met is None:
        return "-"
    text = "met" if point.slo_met else "missed"
    unsure = "?" if point.slo_confidence == "undecided" else ""
    return text + unsure + ("" if point.stable else ", unstable")


def number(value: float | None) -> str:
    """Format a number with three digits; a dash for None."""
    if value is None:
        return "-"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _ms(found: Distribution, *names: str) -> list[str]:
    values = [getattr(found, name) for name in names]
    return [number(None if value is None else value * 1e3) for value in values]


def knee_text(knee: Knee) -> str:
    """Describe the result of a search."""
    unit = "req/s" if knee.kind == "rate" else "at once"
    if knee.level is None:
        return f"no knee found: {knee.reason}"
    span = f" (95 %: {number(knee.low)} to {number(knee.high)})"
    return f"knee at {number(knee.level)} {unit}{span} in {knee.seconds:.0f} s"


def headline(run: Run) -> str:
    """Return the verdict of a run as a sentence."""
    slo = run.spec.get("slo")
    limit = f" (SLO {slo})" if slo else ""
    failed = any(point.failed for point in run.points)
    why = "requests failed" if failed else "no point was stable: queues grew"
    missed = "the SLO is missed"
    if run.knee is not None and (run.knee.level is not None or run.knee.low is not None):
        missed = "no load was confirmed within the SLO"
    text = {
        "pass": "PASS" + limit if slo else "DONE: no SLO was given (--slo), so there is no verdict",
        "fail": f"FAIL: {missed}" + limit if slo else f"FAIL: {why}",
        "generator-bound": "GENERATOR-BOUND: this machine could not generate the load; do not use the"
        " numbers of that point",
        "interrupted": "INTERRUPTED: partial results",
    }[run.verdict]
    if run.knee is not None:
        text += "; " + knee_text(run.knee)
    if run.best is None or len(run.points) < 2:
        return text
    best = run.points[run.best]
    load = f"concurrency {best.concurrency}" if best.concurrency else f"{best.rate:g} req/s"
    power = f", {number(best.tokens_per_joule)} tokens/J" if best.tokens_per_joule else ""
    return f"{text}; best point: {load}, {number(best.requests_per_second)} req/s{power}"
