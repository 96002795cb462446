"""``jouleproxy truth``: list the cases, make their files, score the output of a tool, run all of it."""

import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

from proxy.timeline_file import FileError, TimelineWriter
from proxy.truth import table
from proxy.truth.catalogue import CASE_SET_VERSION, describe, fingerprint, names, simulate, slug
from proxy.truth.estimators import ToolError, by_command, by_policy
from proxy.truth.files import read_estimates, read_truth, write_truth
from proxy.truth.score import score


def list_cases() -> int:
    """Print slug, name and parameters of each case."""
    wide = max(len(slug(name)) for name in names())
    for name in names():
        sys.stdout.write(f"{slug(name):{wide}}  {describe(name)}\n")
    count = len(names())
    sys.stderr.write(f"{count} cases, case set {CASE_SET_VERSION}, fingerprint {fingerprint()}\n")
    return 0


def truth_path(timeline: Path) -> Path:
    """Return the path of the truth file beside a timeline: ``a.truth.jsonl`` beside ``a.jsonl``."""
    stem = timeline.name.removesuffix(".zst").removesuffix(".jsonl")
    return timeline.with_name(f"{stem}.truth.jsonl")


def make(name: str, seed: int, out: Path) -> int:
    """Write the timeline of a case to ``out`` (compressed if it ends in .zst) and its truth beside it."""
    case = simulate(name, seed)
    try:
        with TimelineWriter(out) as writer:
            writer.write(case.events)
        write_truth(truth_path(out), name, seed, case)
    except OSError as error:
        return _fail(f"{error.filename or out}: {error.strerror or error}", 2)
    sys.stdout.write(f"{out}: {len(case.events)} events\n{truth_path(out)}: {len(case.joules)} requests\n")
    return 0


def score_file(out: Path, truth: Path) -> int:
    """Print the score of a tool's output."""
    try:
        joules = read_truth(truth)
        found = score(joules, read_estimates(out, joules))
    except FileError as error:
        return _fail(str(error), 2)
    except OSError as error:
        return _fail(f"{error.filename}: {error.strerror}", 2)
    sys.stdout.write(table.text([table.Row(truth.name.removesuffix(".truth.jsonl"), out.name, found)]) + "\n")
    return 0


def run(
    cases: Sequence[str],
    policies: Sequence[str],
    command: Sequence[str] | None,
    seed: int,
    jobs: int | None,
    json_path: Path | None,
    page_path: Path | None,
) -> int:
    """Score policies, or a command, on cases and print the table. Exit status 1 if the command fails."""
    rows: list[table.Row] = []
    try:
        for found in _results(cases, policies, command, seed, jobs):
            rows += found
            done = len({row.case for row in rows})
            sys.stderr.write(f"{done}/{len(cases)} {found[0].case}\n")
    except (ToolError, FileError) as error:
        return _fail(str(error), 1)
    sys.stdout.write(table.text(rows) + "\n")
    try:
        if json_path:
            json_path.write_bytes(table.as_json(rows, seed))
        if page_path:
            page_path.write_text(table.page(rows, seed))
    except OSError as error:
        return _fail(f"{error.filename}: {error.strerror}", 2)
    return 0


def _results(
    cases: Sequence[str], policies: Sequence[str], command: Sequence[str] | None, seed: int, jobs: int | None
) -> Iterator[list[table.Row]]:
    one = partial(_case, policies=policies, command=command, seed=seed)
    if len(cases) == 1 or jobs == 1:
        yield from map(one, cases)
        return
    with ProcessPoolExecutor(jobs) as pool:
        yield from pool.map(one, cases)


def _case(name: str, policies: Sequence[str], command: Sequence[str] | None, seed: int) -> list[table.Row]:
    case = simulate(name, seed)
    if command is not None:
        return [table.Row(name, "command", score(case.joules, by_command(case, command)))]
    return [table.Row(name, p, score(case.joules, by_policy(case.events, p))) for p in policies]


def _fail(reason: str, status: int) -> int:
    sys.stderr.write(f"jouleproxy truth: {reason}\n")
    return status
