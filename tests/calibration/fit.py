"""``python -m tests.calibration.fit``: profiles from published tables, or from your own load generator runs.

``fit TABLE --out DIR`` writes a profile for each setting of a table in the columns of
:mod:`~tests.calibration.published`; ``fit TABLE --roofline FILE`` the constants for models that are in no
table.
``fit run.json --model NAME --parameters 8e9 --gpu H100 --out DIR`` makes a profile from a closed-loop sweep
(``loadgen sweep --concurrency ...``); mixtures need ``--active`` too.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Final

import msgspec

from proxy.simulator.gpu.datasheets import GPUS
from proxy.simulator.profiles.profile import Profile
from tests.calibration import group_fit, roofline
from tests.calibration.models import WEIGHT_BYTES, short_name
from tests.calibration.published import Model, Point, Setting, TableError, read

_SUFFIXES: Final = {
    "lm-arena-chat": "",
    "gpqa": "-reasoning",
    "sourcegraph-fim": "-code",
    "image-chat": "-image",
    "video-chat": "-video",
}


def file_name(setting: Setting) -> str:
    """``h100x8-deepseek-v3.1-reasoning``: GPUs, model, what it does unless chat; no ending."""
    many = f"x{setting.gpus}" if setting.gpus > 1 else ""
    suffix = _SUFFIXES.get(setting.task, f"-{setting.task}")
    return f"{setting.gpu.lower()}{many}-{short_name(setting.model)}{suffix}"


def toml(profile: Profile) -> str:
    """The profile as a file's text; six digits are more than the fit knows."""
    plain = asdict(profile)
    lines = [f"{key} = {toml_value(value)}" for key, value in plain.items() if _plain(value)]
    for table in ("joules", "seconds", "limits", "experts", "speculation"):
        if plain[table] is not None:
            items = [(key, value) for key, value in plain[table].items() if _plain(value)]
            lines += ["", f"[{table}]", *(f"{key} = {toml_value(value)}" for key, value in items)]
    return "\n".join(lines) + "\n"


def _plain(value: object) -> bool:
    return value is not None and not isinstance(value, dict)


def toml_value(value: object) -> str:
    """A number or string as TOML writes it; six digits are more than a fit knows."""
    if isinstance(value, float):
        return repr(float(f"{value:.6g}"))
    return msgspec.json.encode(value).decode()


def constants_toml(constants: roofline.Constants, source: str) -> str:
    """The pooled constants as a file's text."""
    lines = [f"# {source}"]
    for name, table in (("seconds", constants.seconds), ("joules", constants.joules)):
        lines += ["", f"[{name}]", *(f'"{key}" = {toml_value(value)}' for key, value in table.items())]
    return "\n".join(lines) + "\n"


class _Distribution(msgspec.Struct):
    p50: float | None = None


class _RunPoint(msgspec.Struct):
    concurrency: int | None
    requests: int
    duration_seconds: float
    output_tokens_per_second: float | None
    itl_seconds: _Distribution
    watts: float | None
    joules_per_output_token: float | None


class _Run(msgspec.Struct):
    points: list[_RunPoint]


def from_run(path: Path) -> list[Point]:
    """The points of a load generator's ``run.json``; raises :class:`TableError`."""
    try:
        run = msgspec.json.decode(path.read_bytes(), type=_Run)
    except (OSError, msgspec.MsgspecError) as error:
        raise TableError(f"{path}: {error}") from error
    points = [_from_run_point(point) for point in run.points]
    usable = [point for point in points if point is not None]
    if not usable:
        raise TableError(f"{path}: no point has a concurrency, joules, watts, tokens/s and median ITL")
    return sorted(usable, key=lambda point: point.batch)


def _from_run_point(point: _RunPoint) -> Point | None:
    rate, each, gap = point.output_tokens_per_second, point.joules_per_output_token, point.itl_seconds.p50
    if not (point.concurrency and rate and each and gap and point.watts and point.requests):
        return None
    tokens = rate * point.duration_seconds / point.requests
    return Point(point.concurrency, tokens, each, point.watts, rate, gap)


def write(setting: Setting, points: Sequence[Point], folder: Path, origin: str) -> Path:
    """Fit and write one profile."""
    path = folder / f"{file_name(setting)}.toml"
    path.write_text(toml(group_fit.fit(setting, points, origin)), "utf-8")
    return path


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.calibration.fit",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("table", type=Path, help="a CSV table, or a run.json")
    parser.add_argument("--out", type=Path, help="folder for profiles")
    parser.add_argument("--roofline", type=Path, help="file for the constants of all points together")
    parser.add_argument("--only", default="", help="only settings whose profile's name contains this")
    parser.add_argument("--source", help="what the profiles say the points are; default: the published table")
    add_model_options(parser)
    return parser


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """The options that describe a model and its GPUs."""
    parser.add_argument("--model", help="its name")
    parser.add_argument("--parameters", type=float, help="in all: 8e9")
    parser.add_argument("--active", type=float, help="a token; default: all parameters")
    parser.add_argument("--precision", choices=sorted(WEIGHT_BYTES), default="bfloat16")
    parser.add_argument("--gpu", choices=sorted(GPUS), default="H100")
    parser.add_argument("--gpus", type=int, default=1)
    parser.add_argument("--task", choices=sorted(_SUFFIXES), default="lm-arena-chat")


def setting_of(given: argparse.Namespace) -> Setting | None:
    """The setting these options describe; None without a name or parameters."""
    if given.model is None or given.parameters is None:
        return None
    active = given.active or given.parameters
    model = Model(given.model, given.parameters, active, given.precision)
    return Setting(model, given.task, given.gpu, given.gpus)


def _groups(given: argparse.Namespace) -> dict[Setting, list[Point]]:
    """The points of a table, or of a run; raises :class:`TableError`."""
    if given.table.suffix != ".json":
        return read(given.table)
    setting = setting_of(given)
    if setting is None:
        raise TableError(f"{given.table}: a run needs --model and --parameters")
    return {setting: from_run(given.table)}


def main() -> int:
    """The program; exit status 2 for input that cannot be used."""
    parser = _parser()
    given = parser.parse_args()
    if given.out is None and given.roofline is None:
        parser.error("--out or --roofline is needed")
    try:
        groups = _groups(given)
    except TableError as error:
        sys.stderr.write(f"fit: {error}\n")
        return 2
    if given.roofline is not None:
        count = sum(len(points) for points in groups.values())
        source = f"fitted to {count} points of {len(groups)} settings in {given.table.name}"
        given.roofline.write_text(constants_toml(roofline.fit(groups.items()), source), "utf-8")
        sys.stdout.write(f"written: {given.roofline}\n")
    own = f"own run {given.table}" if given.table.suffix == ".json" else group_fit.PUBLISHED
    origin = given.source or own
    if given.out is not None:
        given.out.mkdir(parents=True, exist_ok=True)
        for setting, points in groups.items():
            if given.only in file_name(setting):
                sys.stdout.write(f"written: {write(setting, points, given.out, origin)}\n")
                sys.stdout.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
