"""The set of cases: names, descriptions, version, and the one function that simulates any of them."""

import hashlib
import re
from dataclasses import dataclass, fields
from typing import Final

from proxy.core.events import Event
from proxy.truth import engine, fleet
from proxy.truth.cases import CASES, Case
from proxy.truth.deployments import DEPLOYMENTS, Deployment

# Raised when a case, a constant or an engine changes so that any timeline differs: results of different
# versions are not comparable. ``fingerprint`` also changes with cases that are added.
CASE_SET_VERSION: Final = 1


@dataclass(frozen=True, slots=True)
class Simulated:
    """A simulated case: the events that a proxy sees, in order, and the joules of each request."""

    events: list[Event]
    joules: dict[str, float]
    idle_joules: float


def names() -> tuple[str, ...]:
    """Return the names of all cases in the order of the published table."""
    return (*CASES, *DEPLOYMENTS)


def slug(name: str) -> str:
    """Return the name as one word for file names and command lines: ``roofline-medium``."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def find(word: str) -> str | None:
    """Return the name of the case with this name or slug; None if there is none."""
    return next((name for name in names() if word == name or slug(word) == slug(name)), None)


def definition(name: str) -> Case | Deployment:
    """Return the parameters of a case."""
    return CASES[name] if name in CASES else DEPLOYMENTS[name]


def describe(name: str) -> str:
    """Return the parameters in which a case differs from the defaults of its kind."""
    case = definition(name)
    plain: Case | Deployment = Case(rate=10.0) if isinstance(case, Case) else Deployment()
    changed = []
    for field in fields(case):
        value = getattr(case, field.name)
        if field.name in {"machine", "other", "target"} or value == getattr(plain, field.name):
            continue
        changed.append(f"{field.name}={value}")
    return ", ".join(changed)


def simulate(name: str, seed: int) -> Simulated:
    """Run a case to its end. The same name, seed and version of numpy give the same events and joules."""
    case = definition(name)
    run = engine.simulate(case, seed) if isinstance(case, Case) else fleet.simulate(case, seed)
    return Simulated(run.events, run.joules, run.idle_joules)


def fingerprint() -> str:
    """Return eight hexadecimal digits that change with the parameters of any case."""
    text = "\n".join(f"{name}: {definition(name)!r}" for name in names())
    return hashlib.sha256(text.encode()).hexdigest()[:8]
