"""``python -m tests.calibration.headlines FOLDER --docs docs``: reproduce published findings.

FOLDER holds ``v3_llm.csv`` and ``v3_diffusion.csv``. For each finding the published number, the same number
from simulated steady states of the same settings, and their ratio; written into ``simulator.md``. ``--tools``
finds some of them once more by running the installed tools (:mod:`~tests.calibration.tool_benchmarks`).
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

import numpy as np

from proxy.simulator.engine import diffusion
from proxy.simulator.profiles.profile import ProfileError, load
from tests.calibration import diffusion_fit, fit, tool_benchmarks
from tests.calibration.findings import Row, table
from tests.calibration.models import workload
from tests.calibration.published import Point, Setting, TableError, read
from tests.calibration.report import put
from tests.calibration.steady_state import Steady, measure

BEGIN: Final = "<!-- headlines: made by python -m tests.calibration.headlines -->"
END: Final = "<!-- end of headlines -->"
TOOLS_BEGIN: Final = "<!-- through the tools: made by python -m tests.calibration.headlines --tools -->"
TOOLS_END: Final = "<!-- end of through the tools -->"

Pair = tuple[Point, Steady]  # published, simulated
Sweeps = dict[Setting, dict[int, Pair]]  # by batch


def sweeps(groups: dict[Setting, list[Point]]) -> Sweeps:
    """Simulate every point of every setting that has a profile."""
    found: Sweeps = {}
    for setting, points in groups.items():
        try:
            profile = load(fit.file_name(setting))
        except ProfileError:
            continue
        work = workload(setting.task)
        found[setting] = {p.batch: (p, measure(profile, work, p.batch, p.output_tokens)) for p in points}
    return found


def batch_rows(found: Sweeps) -> list[Row]:
    """How far a larger batch brings J/token down."""
    both = []
    for pairs in found.values():
        first, rest = pairs[min(pairs)], list(pairs.values())
        theirs = first[0].joules_per_token / min(p.joules_per_token for p, _ in rest)
        ours = first[1].joules_per_token / min(s.joules_per_token for _, s in rest)
        both.append((theirs, ours))
    theirs, ours = np.median(both, axis=0)
    rows = [Row(f"J/token, batch 8 over the best batch: median of {len(both)} settings", theirs, ours)]
    llama = _only(found, "Llama-3.1-8B", "H100")
    if llama is not None:
        small, large = llama[8], llama[512]
        rows.append(
            Row(
                "the same, Llama-3.1-8B on one H100, 8 to 512",
                small[0].joules_per_token / large[0].joules_per_token,
                small[1].joules_per_token / large[1].joules_per_token,
            )
        )
        peak = [max(llama, key=lambda b: -_joules(llama[b])[side]) for side in (0, 1)]
        rows.append(Row("its batch of most tokens/J, of up to 768", peak[0], peak[1], "streams"))
    return rows


def _joules(pair: Pair) -> tuple[float, float]:
    return pair[0].joules_per_token, pair[1].joules_per_token


def _only(found: Sweeps, model: str, gpu: str) -> dict[int, Pair] | None:
    return next((p for s, p in found.items() if s.model.name.startswith(model) and s.gpu == gpu), None)


def reasoning_rows(found: Sweeps) -> list[Row]:
    """Joules of a response: reasoning over chat, each at the largest batch that was published."""
    rows = []
    for chat, pairs in found.items():
        name = chat.model.name.replace("Instruct", "Thinking")
        for other, thinking in found.items():
            same = (other.model.name, other.gpu, other.gpus) == (name, chat.gpu, chat.gpus)
            if chat.task == "lm-arena-chat" and other.task == "gpqa" and same:
                theirs, ours = (_response(thinking, side) / _response(pairs, side) for side in (0, 1))
                where = f"{chat.gpus} {chat.gpu}"
                rows.append(Row(f"J/response, reasoning over chat: {chat.model.name}, {where}", theirs, ours))
    return rows


def _response(pairs: dict[int, Pair], side: int) -> float:
    pair = pairs[max(pairs)]
    return _joules(pair)[side] * pair[0].output_tokens


def gpu_rows(found: Sweeps) -> list[Row]:
    """More GPUs at the same batch: faster, and more joules."""
    gaps, joules = [], []
    for few, pairs in found.items():
        for many, others in found.items():
            same = (few.model, few.task, few.gpu) == (many.model, many.task, many.gpu)
            if same and many.gpus == 2 * few.gpus:
                for batch in pairs.keys() & others.keys():
                    (p, s), (q, t) = pairs[batch], others[batch]
                    gaps.append(
                        (
                            q.median_itl_seconds / p.median_itl_seconds,
                            t.median_itl_seconds / s.median_itl_seconds,
                        )
                    )
                    joules.append(
                        (q.joules_per_token / p.joules_per_token, t.joules_per_token / s.joules_per_token)
                    )
    if not gaps:
        return []
    return [
        Row(
            f"twice the GPUs at equal batch, median ITL: median of {len(gaps)} pairs",
            *np.median(gaps, axis=0),
        ),
        Row("twice the GPUs at equal batch, J/token", *np.median(joules, axis=0)),
    ]


def winner_rows(found: Sweeps) -> list[str]:
    """Of comparisons at equal batch, in how many the simulated winner is the published one."""
    rows = []
    for title, paired in (
        ("B200 against H100, same model and task, J/token", lambda a, b: a.gpu == "B200" and b.gpu == "H100"),
        (
            "FP8 against BF16, same GPUs and task, J/token",
            lambda a, b: (
                a.model.precision == "fp8"
                and b.model.precision == "bfloat16"
                and a.gpus == b.gpus
                and a.gpu == b.gpu
            ),
        ),
    ):
        agree, wins, count = _agreement(found, paired)
        if count:
            rows.append(f"| {title}: the same winner | {wins} of {count} won | {agree} of {count} agree | |")
    return rows


def _agreement(found: Sweeps, paired: Callable[[Setting, Setting], bool]) -> tuple[int, int, int]:
    agree = wins = count = 0
    for one, pairs in found.items():
        for other, others in found.items():
            names = [s.model.name.removesuffix("-FP8") for s in (one, other)]
            if names[0] == names[1] and one.task == other.task and paired(one, other):
                for batch in pairs.keys() & others.keys():
                    theirs, ours = (
                        (a < b) for a, b in zip(_joules(pairs[batch]), _joules(others[batch]), strict=True)
                    )
                    agree, wins, count = agree + (theirs == ours), wins + theirs, count + 1
    return agree, wins, count


def diffusion_rows(path: Path) -> list[Row]:
    """A film over an image, on one H100, at the best batch of each."""
    best: dict[str, list[tuple[float, float]]] = {"image": [], "video": []}
    for key, points in diffusion_fit.read(path).items():
        if key[1:] != ("H100", 1):
            continue
        profile = diffusion.load(diffusion_fit.file_name(key))
        each = [(p.joules / p.samples, _generation(profile, p.samples)) for p in points]
        best[profile.kind].append(min(each))
    if not (best["image"] and best["video"]):
        return []
    films, images = np.max(best["video"], axis=0), np.min(best["image"], axis=0)
    middle = np.median(best["video"], axis=0) / np.median(best["image"], axis=0)
    return [
        Row("J/generation, the median video model over the median image model, one H100", *middle),
        Row("J/generation, the most expensive video model over the cheapest image model", *(films / images)),
    ]


def _generation(profile: diffusion.DiffusionProfile, samples: int) -> float:
    """Joules of one sample in a batch, as the engine charges them."""
    engine = diffusion.DiffusionEngine(profile)
    shape = diffusion.Shape(profile.width, profile.height, profile.frames, profile.steps)
    job = diffusion.DiffusionJob("a", samples, shape)
    engine.submit(job)
    while (step := engine.plan()) is not None:
        engine.take(step, 1.0)
    return job.joules.total / samples


def through_tools(groups: dict[Setting, list[Point]]) -> str:
    """Two tables: what our tools plan beside what was published, and what they measure beside their plan."""
    planned = table(tool_benchmarks.planned(groups))
    live = table(tool_benchmarks.live(), titles="planned, virtual time | measured, real time")
    return f"{planned}\n\n{live}"


def main() -> int:
    """The program; exit status 2 for input that cannot be used."""
    parser = argparse.ArgumentParser(prog="python -m tests.calibration.headlines", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--docs", type=Path, help="folder of simulator.md; else the table goes to stdout")
    parser.add_argument(
        "--tools", action="store_true", help="also by running loadgen and jouleproxy: minutes"
    )
    given = parser.parse_args()
    try:
        groups = read(given.folder / "v3_llm.csv")
        found = sweeps(groups)
        rows = [*batch_rows(found), *reasoning_rows(found), *gpu_rows(found)]
        rows += diffusion_rows(given.folder / "v3_diffusion.csv")
        texts = [(table(rows, winner_rows(found)), BEGIN, END)]
        if given.tools:
            texts.append((through_tools(groups), TOOLS_BEGIN, TOOLS_END))
        for text, begin, end in texts:
            if given.docs is None:
                sys.stdout.write(text + "\n")
            else:
                put(given.docs / "simulator.md", text, begin, end)
    except (TableError, ProfileError, tool_benchmarks.ToolError, OSError) as error:
        sys.stderr.write(f"headlines: {error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
