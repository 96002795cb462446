"""``python -m tests.calibration.diffusion_fit TABLE --out DIR``: diffusion profiles from a published table.

The table has one size and length a model, so how a step's cost grows with them is not in it: the attention's
part, which grows with their square, is computed from the models' published width and depth; the rest grows in
proportion. Decoding the latents is in the steps. With several GPUs the fastest published layout of each batch
size counts.
"""

import argparse
import csv
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import numpy as np

from proxy.simulator.engine.diffusion import DiffusionProfile, Shape, StepCosts
from proxy.simulator.gpu.datasheets import GPUS
from tests.calibration import least_squares
from tests.calibration.fit import toml_value
from tests.calibration.published import TableError

# Hidden size * layers of the transformer, from the models' config.json, and parameters.
_WIDTHS: Final = {
    "PixArt-Sigma": (1152 * 28, 0.6e9),
    "stable-diffusion-3.5-large": (2432 * 38, 8.1e9),
    "Wan2.1-T2V-1.3B": (1536 * 30, 1.3e9),
    "Wan2.1-T2V-14B": (5120 * 40, 14e9),
    "CogVideoX-2b": (1920 * 30, 2e9),
    "CogVideoX1.5-5B": (3072 * 42, 5e9),
}


@dataclass(frozen=True, slots=True)
class Batch:
    """A published point: a batch's seconds, and joules of all GPUs."""

    samples: int
    shape: Shape
    fps: int
    seconds: float
    joules: float


Key = tuple[str, str, int]  # model, GPU, how many


def read(path: Path) -> dict[Key, list[Batch]]:
    """The fastest layout of each batch size, by model and GPUs; raises :class:`TableError`."""
    best: dict[Key, dict[int, Batch]] = {}
    try:
        with path.open(newline="", encoding="utf-8") as file:
            for line, row in enumerate(csv.DictReader(file), start=2):
                try:
                    batch = _batch(row)
                    key = (row["model_id"].rsplit("/", 1)[-1], row["gpu_model"], int(row["num_gpus"]))
                except (KeyError, ValueError, TypeError) as error:
                    raise TableError(f"{path}: line {line}: {type(error).__name__} {error}") from error
                known = best.setdefault(key, {}).get(batch.samples)
                if known is None or batch.seconds < known.seconds:
                    best[key][batch.samples] = batch
    except OSError as error:
        raise TableError(f"{path}: {error.strerror}") from error
    return {key: [points[n] for n in sorted(points)] for key, points in best.items()}


def _batch(row: dict[str, str]) -> Batch:
    samples = int(row["batch_size"])
    shape = Shape(
        int(row["width"]), int(row["height"]), int(row["num_frames"] or 1), int(row["inference_steps"])
    )
    joules = float(row["energy_per_generation_joules"]) * samples
    return Batch(samples, shape, int(float(row["fps"] or 0)), float(row["batch_latency_s"]), joules)


def fit(key: Key, points: Sequence[Batch]) -> DiffusionProfile:
    """A profile of the points of one model on GPUs, which share one shape."""
    model, gpu, gpus = key
    shape = points[0].shape
    samples = np.array([point.samples for point in points], dtype=np.float64)
    terms = np.column_stack([np.ones_like(samples), samples]) * shape.steps
    found = [
        least_squares.fit(terms, np.array([getattr(point, name) for point in points]))
        for name in ("seconds", "joules")
    ]
    share, thousands = attention_share(model, shape.tokens), shape.tokens / 1000
    seconds, joules = (
        StepCosts(float(once), float(each) * (1 - share) / thousands, float(each) * share / thousands**2)
        for once, each in found
    )
    return DiffusionProfile(
        model=short_name(model),
        device=f"{GPUS[gpu].name} (simulated)",
        kind="video" if shape.frames > 1 else "image",
        devices=gpus,
        idle_watts=GPUS[gpu].idle_watts * gpus,
        width=shape.width,
        height=shape.height,
        frames=shape.frames,
        fps=points[0].fps,
        steps=shape.steps,
        max_batch=max(point.samples for point in points),
        seconds=seconds,
        joules=joules,
        source=(
            f"fitted to {len(points)} batch sizes of {model} on {gpus} {gpu}: ML.ENERGY Leaderboard v3 "
            "(arXiv 2601.22076). Assumed: idle power, the growth with size and length."
        ),
    )


def attention_share(model: str, tokens: float) -> float:
    """Of a sample's operations, the part of attention: 4*t*t*width*depth of that and 2*parameters*t."""
    for name, (width, parameters) in _WIDTHS.items():
        if model.startswith(name):
            attention = 2 * tokens * width / parameters
            return attention / (1 + attention)
    return 0.0


def short_name(model: str) -> str:
    """As a profile calls it."""
    return model.lower().removesuffix("-diffusers").removesuffix("-xl-2-1024-ms")


def file_name(key: Key) -> str:
    """``h100x2-wan2.1-t2v-14b``."""
    model, gpu, gpus = key
    return f"{gpu.lower()}{f'x{gpus}' if gpus > 1 else ''}-{short_name(model)}"


def toml(profile: DiffusionProfile) -> str:
    """The profile as a file's text."""
    plain = asdict(profile)
    tables = {name: plain.pop(name) for name in ("seconds", "joules")}
    lines = [f"{key} = {toml_value(value)}" for key, value in plain.items() if value is not None]
    for name, table in tables.items():
        lines += ["", f"[{name}]", *(f"{key} = {toml_value(value)}" for key, value in table.items())]
    return "\n".join(lines) + "\n"


def errors(profile: DiffusionProfile, points: Sequence[Batch]) -> tuple[float, float]:
    """Median relative errors of a batch's seconds and joules."""
    off = []
    for costs, name in ((profile.seconds, "seconds"), (profile.joules, "joules")):
        each = [
            p.shape.steps * (costs.static + p.samples * costs.sample(p.shape.tokens)) / getattr(p, name) - 1
            for p in points
        ]
        off.append(float(np.median(np.abs(each))))
    return off[0], off[1]


def main() -> int:
    """The program; exit status 2 for input that cannot be used."""
    parser = argparse.ArgumentParser(prog="python -m tests.calibration.diffusion_fit", description=__doc__)
    parser.add_argument("table", type=Path)
    parser.add_argument("--out", type=Path, required=True, help="folder for profiles")
    given = parser.parse_args()
    try:
        groups = read(given.table)
    except TableError as error:
        sys.stderr.write(f"diffusion_fit: {error}\n")
        return 2
    given.out.mkdir(parents=True, exist_ok=True)
    rows = ["| setting | batch sizes | seconds | joules |", "|---|---:|---:|---:|"]
    for key in sorted(groups):
        profile = fit(key, groups[key])
        (given.out / f"{file_name(key)}.toml").write_text(toml(profile), "utf-8")
        time_off, energy_off = errors(profile, groups[key])
        rows.append(
            f"| {file_name(key)} | {len(groups[key])} | {100 * time_off:.1f} % | {100 * energy_off:.1f} % |"
        )
    sys.stdout.write("\n".join(rows) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
