"""Tables of published measurements, in the columns of the ML.ENERGY Leaderboard v3 (arXiv 2601.22076).

A point is a steady state: ``batch`` requests decode at a time. The tables lie outside the package; what the
package has from them are fitted constants, in its profiles.
"""

import csv
from dataclasses import dataclass
from pathlib import Path

from proxy.units import MS_PER_SECOND


class TableError(ValueError):
    """A table cannot be used; ``str`` names file, line and column."""


@dataclass(frozen=True, slots=True)
class Model:
    """What a model is known by: parameters in all and per token, their precision."""

    name: str
    parameters: float
    active: float
    precision: str

    @property
    def mixture(self) -> bool:
        """Whether a token uses only part of the parameters."""
        return self.active < 0.99 * self.parameters


@dataclass(frozen=True, slots=True)
class Setting:
    """What was measured: a model at a task on GPUs."""

    model: Model
    task: str
    gpu: str
    gpus: int
    data_parallel: int = 1


@dataclass(frozen=True, slots=True)
class Point:
    """One steady state; joules, watts and tokens of all GPUs together, latency in seconds."""

    batch: int
    output_tokens: float  # mean of a request
    joules_per_token: float
    watts: float
    tokens_per_second: float
    median_itl_seconds: float

    @property
    def seconds_per_step(self) -> float:
        """Time in which each stream gets a token, prefill of others included."""
        return self.batch / self.tokens_per_second


def read(path: Path) -> dict[Setting, list[Point]]:
    """The points of a CSV table by setting, in order of batch size; raises :class:`TableError`."""
    groups: dict[Setting, list[Point]] = {}
    try:
        with path.open(newline="", encoding="utf-8") as file:
            for line, row in enumerate(csv.DictReader(file), start=2):
                try:
                    setting, point = _setting(row), _point(row)
                except (KeyError, ValueError, TypeError) as error:
                    raise TableError(f"{path}: line {line}: {type(error).__name__} {error}") from error
                groups.setdefault(setting, []).append(point)
    except OSError as error:
        raise TableError(f"{path}: {error.strerror}") from error
    return {setting: sorted(points, key=lambda p: p.batch) for setting, points in groups.items()}


def _setting(row: dict[str, str]) -> Setting:
    model = Model(
        row["model_id"].rsplit("/", 1)[-1],
        float(row["total_params_billions"]) * 1e9,
        float(row["activated_params_billions"]) * 1e9,
        row["weight_precision"],
    )
    gpus, copies = int(float(row["num_gpus"])), int(float(row["data_parallel"] or 1))
    return Setting(model, row["task"], row["gpu_model"], gpus, copies)


def _point(row: dict[str, str]) -> Point:
    return Point(
        batch=int(float(row["max_num_seqs"])),
        output_tokens=float(row["avg_output_len"]),
        joules_per_token=float(row["energy_per_token_joules"]),
        watts=float(row["avg_power_watts"]),
        tokens_per_second=float(row["output_throughput_tokens_per_sec"]),
        median_itl_seconds=float(row["median_itl_ms"]) / MS_PER_SECOND,
    )
