"""Runs policies over cases and compares with the truth."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from proxy.core.attribution import Attributor
from proxy.truth import engine, fleet
from proxy.truth.cases import CASES, Case
from proxy.truth.deployments import DEPLOYMENTS, Deployment
from proxy.truth.files import Estimate
from proxy.truth.score import Score, score

CLEAN_TARGET = (0.03, 0.10)  # median, p95: attribution with clean streams
NOISY_TARGET = (0.06, 0.20)
EVIDENCE_TARGET = (0.01, 0.03)  # with the engine's own steps
COVERAGE_TARGET = (0.85, 0.95)


@dataclass(frozen=True, slots=True)
class Row:
    """One case under one policy; ``conservation`` is the relative difference of the accounts to the meter."""

    case: str
    policy: str
    score: Score
    conservation: float
    target: tuple[float, float] | None

    @property
    def errors(self) -> NDArray[np.float64]:
        """Return the relative errors of the requests, sorted."""
        return self.score.errors

    @property
    def median(self) -> float:
        """Return the median error."""
        return self.score.median

    @property
    def p95(self) -> float:
        """Return the 95th percentile of the errors."""
        return self.score.p95

    @property
    def within(self) -> float:
        """Return the share of requests whose truth lies in their interval; 0 where none has one."""
        return self.score.inside or 0.0

    @property
    def width(self) -> float:
        """Return the median width of the intervals, relative to the joules; 0 where none has one."""
        return self.score.width or 0.0

    @property
    def met(self) -> bool:
        """Whether the target was met; true where there is none."""
        return self.target is None or (self.median <= self.target[0] and self.p95 <= self.target[1])


def target(case: Case | Deployment) -> tuple[float, float] | None:
    """Return the target of a case; none where the sensor itself hides or bends the truth."""
    if isinstance(case, Deployment):
        return case.target
    if case.sensor != "counter" or case.gain:
        return None
    if case.reported_steps:
        return EVIDENCE_TARGET
    return NOISY_TARGET if case.noisy else CLEAN_TARGET


def measure(name: str, policy: str, seed: int = 1) -> Row:
    """Simulate a case, attribute it, compare."""
    case: Case | Deployment = CASES[name] if name in CASES else DEPLOYMENTS[name]
    run = engine.simulate(case, seed) if isinstance(case, Case) else fleet.simulate(case, seed)
    attributor = Attributor(policy)
    attributor.feed_all(run.events)
    attributor.flush()
    shares = attributor.drain()
    assert {share.request for share in shares} == set(run.joules)
    estimates = {s.request: Estimate(s.joules, s.joules_low, s.joules_high) for s in shares}
    accounts = attributor.accounts()
    measured = sum(account.measured_joules for account in accounts)
    idle = sum(account.idle_joules + account.unattributed_joules for account in accounts)
    charged = sum(share.joules or 0.0 for share in shares)
    conservation = abs(charged + idle - measured) / measured
    return Row(name, policy, score(run.joules, estimates), conservation, target(case))


def table(rows: list[Row]) -> str:
    """Format the rows as Markdown, one line a case: ``steps`` in full, median and p95 of the others."""
    lines = [
        "| case | requests | `overlap` | `tokens` | `steps` median / p95 | target | in interval | width "
        "| sum |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name in dict.fromkeys(row.case for row in rows):
        of = {row.policy: row for row in rows if row.case == name}
        steps = of["steps"]
        goal = f"{steps.target[0]:.0%} / {steps.target[1]:.0%}" if steps.target else "none"
        shown = f"{steps.median:.2%} / {steps.p95:.1%}"
        others = [f"{of[p].median:.0%} / {of[p].p95:.0%}" if p in of else "" for p in ("overlap", "tokens")]
        worst = max(row.conservation for row in of.values())
        lines.append(
            f"| {name} | {len(steps.errors)} | {others[0]} | {others[1]} | "
            f"{shown if steps.met else f'**{shown}**'} | {goal} | "
            f"{steps.within:.0%} | {steps.width:.2f} | {worst:.0e} |"
        )
    return "\n".join(lines)


_PAGE = """# How large the error is

Made by `make truth`: simulated engines in which the fair share of each request is known, seen as a proxy
sees them. Median and 95th percentile of the relative error of the joules of each request. The engines share
no code or constants with the estimator (`proxy/truth/`).

![Share of requests against their error, by policy](img/accuracy.svg)

{table}

*In interval*: requests whose truth lies between `joules_low` and `joules_high`, a 90 % interval; {inside:.0%}
on the mean of the cases. *Width*: median width of that interval, relative to the joules. *Sum*: largest
relative difference between the meter and requests + idle +
unattributed. Targets: 3 % / 10 % with clean streams, 6 % / 20 % with blurred ones, 1 % / 3 % where the
engine reports its steps; none where the sensor itself hides the truth.

Targets missed: {missed}.

## What the cases are

Poisson arrivals, log-normal prompts and answers; light, medium and heavy are 2, 10 and 25 requests/s of an
8B model on an H100-like device with a counter that moves every 100 ms. *Overloaded* has several hundred
requests in the engine and more in the queue. *All of it*: 2 ms of jitter, 8 % merged chunks, 15 % of the
answers not streamed, 5 % cancelled, 30 % with a cached prefix. *Tokens not known*: the proxy counts chunks,
and the usage of the answer gives the rest. *Power, mean of 1 s* is what some boards report; it does not show
who drew it. *Gain*: the sensor reads 4 % high, and its stated error is in the interval.

From *roofline, medium* on, the engines are deployed as people run them (`proxy/truth/deployments.py`): the
length of a step is the maximum of memory and compute time (*roofline*), their sum (*sum*) or something
between, energy follows time, bytes and operations, and the truth is the Shapley value of each step
(`proxy/truth/machine.py`). Preemption and weights that are read by the number of tokens (*experts*) are not
modelled yet. Chunks of several tokens that are not counted, prompts that nothing compares, and *all at once*
miss their targets: their rows show how wrong the joules are today.
"""


def write(path: Path, rows: list[Row]) -> None:
    """Write the page ``docs/accuracy.md``."""
    steps = [row for row in rows if row.policy == "steps"]
    missed = ", ".join(row.case for row in steps if not row.met) or "none"
    inside = float(np.mean([row.within for row in steps]))
    path.write_text(_PAGE.format(table=table(rows), inside=inside, missed=missed))
