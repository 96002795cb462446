"""Tables of scores: for a terminal, as JSON, and as the page of formulas."""

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
import numpy as np

from proxy.truth.catalogue import CASE_SET_VERSION, fingerprint
from proxy.truth.formulas import SOURCES
from proxy.truth.score import Score


@dataclass(frozen=True, slots=True)
class Row:
    """The score of one policy, or of a command, on one case."""

    case: str
    policy: str
    score: Score


def policies(rows: Sequence[Row]) -> list[str]:
    """Return the policies of the rows, each once, in order."""
    return list(dict.fromkeys(row.policy for row in rows))


def text(rows: Sequence[Row]) -> str:
    """Return the table for a terminal: one line a case and policy, then the means over the cases."""
    several = len(policies(rows)) > 1
    wide = max(len(row.case) for row in rows)
    head = f"{'case':{wide}}  {'policy':18}" if several else f"{'case':{wide}}"
    lines = [f"{head}  requests   median      p95      sum  inside  width  missing"]
    for row in rows:
        label = f"{row.case:{wide}}  {row.policy:18}" if several else f"{row.case:{wide}}"
        lines.append(f"{label}  {len(row.score.errors):8}  {_cells(row.score)}  {row.score.missing:7}")
    lines.append("")
    for policy in policies(rows):
        of = [row.score for row in rows if row.policy == policy]
        lines.append(f"{policy}: {len(of)} cases, {_means(of)}")
    lines.append(f"case set {CASE_SET_VERSION}, fingerprint {fingerprint()}")
    return "\n".join(lines)


def _cells(score: Score) -> str:
    inside = "-" if score.inside is None else f"{score.inside:.0%}"
    width = "-" if score.width is None else f"{score.width:.2f}"
    return f"{score.median:7.2%}  {score.p95:7.1%}  {score.sum_error:+7.1%}  {inside:>6}  {width:>5}"


def _means(of: Sequence[Score]) -> str:
    median, p95 = np.mean([s.median for s in of]), np.mean([s.p95 for s in of])
    worst = max(of, key=lambda s: s.median)
    return f"mean of the medians {median:.2%}, of the p95 {p95:.1%}, worst median {worst.median:.1%}"


def as_json(rows: Sequence[Row], seed: int) -> bytes:
    """Return all scores as one JSON object."""
    scores = [
        {
            "case": row.case,
            "policy": row.policy,
            "requests": len(row.score.errors),
            "median": row.score.median,
            "p95": row.score.p95,
            "sum": row.score.sum_error,
            "inside": row.score.inside,
            "width": row.score.width,
            "missing": row.score.missing,
        }
        for row in rows
    ]
    record = {"case_set": CASE_SET_VERSION, "fingerprint": fingerprint(), "seed": seed, "scores": scores}
    return msgspec.json.format(msgspec.json.encode(record), indent=1) + b"\n"


_PAGE = """# The field's formulas on the same cases

Made by `jouleproxy truth run --policy all --page docs/formulas.md`. Case set {version}, fingerprint
{fingerprint}, seed {seed}. Engines and devices are simulated; the truth is the [Shapley value](truth.md) of
each step. Errors are relative, of the joules of each request: median / 95th percentile. The formulas are
written from their sources, not taken from the tools: the tools themselves may differ.

## On the mean of {count} cases

| policy | source | median | p95 | worst median | sum | in interval |
|---|---|---|---|---|---|---|
{summary}

*Sum*: mean of the absolute error of the sum over all requests of a case. *In interval*: requests whose truth
lies in the 90 % interval that the policy reports; a formula has none.

## By case

| case | requests | {heads} |
|---|---|{rules}|
{cases}
"""


def page(rows: Sequence[Row], seed: int) -> str:
    """Return the page that compares all policies of the rows."""
    found = policies(rows)
    return _PAGE.format(
        version=CASE_SET_VERSION,
        fingerprint=fingerprint(),
        seed=seed,
        count=len({row.case for row in rows}),
        summary="\n".join(
            _summary(policy, [r.score for r in rows if r.policy == policy]) for policy in found
        ),
        heads=" | ".join(f"`{policy}`" for policy in found),
        rules="---|" * (len(found) - 1) + "---",
        cases="\n".join(_case_line(name, rows) for name in dict.fromkeys(row.case for row in rows)),
    )


def _summary(policy: str, of: Sequence[Score]) -> str:
    inside = [s.inside for s in of if s.inside is not None]
    cells = [
        f"`{policy}`",
        SOURCES.get(policy, "this project"),
        f"{np.mean([s.median for s in of]):.1%}",
        f"{np.mean([s.p95 for s in of]):.0%}",
        f"{max(s.median for s in of):.0%}",
        f"{np.mean([abs(s.sum_error) for s in of]):.1%}",
        f"{np.mean(inside):.0%}" if inside else "-",
    ]
    return f"| {' | '.join(cells)} |"


def _case_line(name: str, rows: Sequence[Row]) -> str:
    of = [row for row in rows if row.case == name]
    cells = [f"{row.score.median:.1%} / {row.score.p95:.0%}" for row in of]
    return f"| {name} | {len(of[0].score.errors)} | {' | '.join(cells)} |"
