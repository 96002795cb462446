"""Findings of published measurements, found again by running the installed tools as a user would.

``loadgen sweep --simulate`` in virtual time, and ``jouleproxy demo --once`` in real time, through HTTP:
engine, proxy, NVML, meter and load generator. Both are programs to this module; it reads their ``run.json``.
"""

import math
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

import msgspec

from proxy.simulator.profiles.profile import DEFAULT, load
from tests.calibration import fit
from tests.calibration.findings import Row
from tests.calibration.models import workload
from tests.calibration.published import Point, Setting

LLAMA: Final = "h100-llama-3.1-8b"
REASONING: Final = ("h100-qwen3-14b", "h100-qwen3-14b-reasoning")
DOUBLED: Final = ("h100-qwen3-30b-a3b-2507", "h100x2-qwen3-30b-a3b-2507")
LIVE: Final = (1, 8, 32)  # requests in flight
_ROUNDS: Final = (
    8  # requests of a point, in batches: all begin at once, and fill the cache in the third or so
)
_LEAST: Final = 128


class ToolError(Exception):
    """A program ended with an error; ``str`` has its last line."""


class _Distribution(msgspec.Struct):
    p50: float


class _Found(msgspec.Struct):
    concurrency: int
    joules_per_output_token: float
    joules_per_request: float
    itl_seconds: _Distribution


class _Run(msgspec.Struct):
    points: list[_Found]


def planned(groups: Mapping[Setting, Sequence[Point]]) -> Iterator[Row]:
    """In virtual time, of the settings that a table has; raises :class:`ToolError`. Takes minutes."""
    named = {fit.file_name(setting): (setting, list(points)) for setting, points in groups.items()}
    if LLAMA in named:
        yield from _batches(*named[LLAMA])
    if all(name in named for name in REASONING):
        yield _reasoning(named[REASONING[0]], named[REASONING[1]])
    if all(name in named for name in DOUBLED):
        yield from _doubled(named[DOUBLED[0]], named[DOUBLED[1]])


def _batches(setting: Setting, points: list[Point]) -> Iterator[Row]:
    found = {point.batch: _swept(setting, point).joules_per_output_token for point in points}
    theirs = {point.batch: point.joules_per_token for point in points}
    first, best, ours = min(theirs), min(theirs, key=theirs.__getitem__), min(found, key=found.__getitem__)
    title = f"{setting.model.name}, 1 {setting.gpu}"
    yield Row(
        f"J/token, {title}: batch {first} over {best}",
        theirs[first] / theirs[best],
        found[first] / found[best],
    )
    yield Row(f"batch of most tokens/J, of up to {max(theirs)}: {title}", best, ours, "streams")


def _reasoning(chat: tuple[Setting, list[Point]], other: tuple[Setting, list[Point]]) -> Row:
    """At the largest published batch of each."""
    (setting, points), (_, thoughts) = chat, other
    theirs = [p[-1].joules_per_token * p[-1].output_tokens for p in (points, thoughts)]
    ours = [_swept(s, p[-1]).joules_per_request for s, p in (chat, other)]
    title = f"J/response, reasoning over chat: {setting.model.name}, {setting.gpus} {setting.gpu}"
    return Row(title, theirs[1] / theirs[0], ours[1] / ours[0])


def _doubled(few: tuple[Setting, list[Point]], many: tuple[Setting, list[Point]]) -> Iterator[Row]:
    """At the largest batch that both have."""
    by_batch = [{point.batch: point for point in points} for _, points in (few, many)]
    batch = max(by_batch[0].keys() & by_batch[1].keys())
    one, two = (by[batch] for by in by_batch)
    ours = [_swept(setting, by[batch]) for (setting, _), by in zip((few, many), by_batch, strict=True)]
    title = f"{few[0].model.name}, {many[0].gpus} {few[0].gpu} over {few[0].gpus}, batch {batch}"
    gaps = [found.itl_seconds.p50 for found in ours]
    yield Row(f"median ITL: {title}", two.median_itl_seconds / one.median_itl_seconds, gaps[1] / gaps[0])
    joules = [found.joules_per_output_token for found in ours]
    yield Row(f"J/token: {title}", two.joules_per_token / one.joules_per_token, joules[1] / joules[0])


def live(levels: Sequence[int] = LIVE) -> Iterator[Row]:
    """The demo's sweep, measured through HTTP and NVML in real time, over the same in virtual time."""
    wanted = ",".join(map(str, levels))
    real = _run("jouleproxy", "demo", "--once", "--concurrency", wanted)
    words = ("--concurrency", wanted, "--requests", "256", "--input", "256", "--output", "64")
    planned = _run("loadgen", "sweep", "--simulate", DEFAULT, "--quiet", *words)
    for one, other in zip(real, planned, strict=True):
        title = f"J/token, {DEFAULT}, {one.concurrency} at once"
        yield Row(title, other.joules_per_output_token, one.joules_per_output_token, "J")


def _swept(setting: Setting, point: Point) -> _Found:
    """A sweep of one batch size in virtual time, with lengths of the published mean."""
    profile, work = load(fit.file_name(setting)), workload(setting.task)
    limits = replace(
        profile.limits,
        max_num_seqs=point.batch,
        max_batched_tokens=max(profile.limits.max_batched_tokens, point.batch),
    )
    median = math.exp(-(work.sigma**2) / 2)
    lengths = [
        f"lognormal:{mean * median:g},{work.sigma:g}" for mean in (work.prompt_tokens, point.output_tokens)
    ]
    with tempfile.TemporaryDirectory(prefix="headlines-") as folder:
        file = Path(folder) / "profile.toml"
        file.write_text(fit.toml(replace(profile, limits=limits)), "utf-8")
        words = ("--concurrency", str(point.batch), "--requests", str(max(_ROUNDS * point.batch, _LEAST)))
        (found,) = _run(
            "loadgen",
            *("sweep", "--simulate", str(file), "--quiet", "--warmup", "mlenergy", *words),
            *("--input", lengths[0], "--output", lengths[1]),
        )
    return found


def _run(program: str, *words: str) -> list[_Found]:
    """The points of the ``run.json`` that an installed program writes."""
    beside = Path(sys.executable).with_name(program)
    path = str(beside) if beside.exists() else shutil.which(program)
    if path is None:
        raise ToolError(f"{program} is not installed")
    with tempfile.TemporaryDirectory(prefix="headlines-") as folder:
        out = Path(folder) / "run"
        done = subprocess.run([path, *words, "--out", str(out)], capture_output=True, text=True, check=False)
        try:
            return msgspec.json.decode((out / "run.json").read_bytes(), type=_Run).points
        except (OSError, msgspec.MsgspecError) as error:
            said = (done.stderr.strip().splitlines() or ["nothing said"])[-1]
            raise ToolError(f"{program} {words[0]} ended with {done.returncode}: {said}") from error
