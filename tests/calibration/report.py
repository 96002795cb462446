"""``python -m tests.calibration.report TABLE --docs docs``: how true the simulator is to published points.

Simulates every published point twice: with the fitted profile of its setting, and with one predicted from
parameters alone by constants that were fitted without that model. A setting of which there is no profile is
only predicted, by the package's constants: it was not among those they were fitted to. Writes the table
into ``simulator.md`` between its marks, and the plots of ours over theirs beside it.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from proxy.simulator.profiles.profile import ProfileError, load, names
from tests.calibration import fit, roofline
from tests.calibration.least_squares import Floats
from tests.calibration.models import workload
from tests.calibration.point_errors import NAMES, TARGETS, Errors, compare
from tests.calibration.published import Point, Setting, TableError, read

BEGIN: Final = "<!-- truth to data: made by python -m tests.calibration.report -->"
END: Final = "<!-- end of truth to data -->"
PREDICTED_TARGET: Final = 0.25

Groups = dict[Setting, list[Point]]


@dataclass(frozen=True, slots=True)
class Outcome:
    """A setting, its points, and the errors of the fitted profile, if any, and of the predicted one."""

    setting: Setting
    points: Sequence[Point]
    fitted: Errors | None
    predicted: Errors

    @property
    def met(self) -> bool:
        """Whether all four medians of the fitted profile are within the targets."""
        return self.fitted is not None and bool((self.fitted.medians <= TARGETS).all())


def outcomes(groups: Groups, say: Callable[[str], None]) -> list[Outcome]:
    """Every setting of a table; ``say`` hears of each one."""
    known = set(names())
    without: dict[str, roofline.Constants] = {}
    found = []
    for setting, points in groups.items():
        name, model = fit.file_name(setting), setting.model.name
        work = workload(setting.task)
        fitted = compare(load(name), work, points) if name in known else None
        if fitted is None:
            constants = roofline.load()
        else:
            if model not in without:
                without[model] = roofline.fit((s, p) for s, p in groups.items() if s.model.name != model)
            constants = without[model]
        predicted = compare(roofline.predict(setting, constants), work, points)
        found.append(Outcome(setting, points, fitted, predicted))
        own = "no profile" if fitted is None else _percent(fitted.medians)
        say(f"{name}: {own}; predicted {_percent(predicted.medians)}")
    return found


def table(found: Sequence[Outcome]) -> str:
    """The Markdown between the marks."""
    head = ["setting", "points", *NAMES, "all within", *(f"{name}, predicted" for name in NAMES)]
    lines = [
        *_fitted_summary(found),
        "Predicted from parameters alone, with constants fitted without that model: medians over all points "
        f"{_percent(_pooled([o.predicted for o in found]))} (target 25 % each); settings within 25 %: "
        + ", ".join(
            f"{name} {sum(o.predicted.medians[i] <= PREDICTED_TARGET for o in found)}"
            for i, name in enumerate(NAMES)
        )
        + f" of {len(found)}.",
        "",
        "| " + " | ".join(head) + " |",
        "|---|" + "---:|" * (len(head) - 1),
    ]
    for outcome in sorted(found, key=lambda o: fit.file_name(o.setting)):
        cells = [fit.file_name(outcome.setting), str(len(outcome.points))]
        if outcome.fitted is None:
            cells += ["-"] * (len(NAMES) + 1)
        else:
            cells += [_cell(e, t) for e, t in zip(outcome.fitted.medians, TARGETS, strict=True)]
            cells += ["yes" if outcome.met else "no"]
        cells += [_cell(e, PREDICTED_TARGET) for e in outcome.predicted.medians]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _fitted_summary(found: Sequence[Outcome]) -> list[str]:
    fitted = [outcome.fitted for outcome in found if outcome.fitted is not None]
    if not fitted:
        return []
    points = sum(len(outcome.points) for outcome in found if outcome.fitted is not None)
    met = sum(outcome.met for outcome in found)
    each = "; ".join(
        f"{name} {sum(errors.medians[i] <= TARGETS[i] for errors in fitted)}" for i, name in enumerate(NAMES)
    )
    return [
        f"{len(fitted)} settings, {points} points. Median error over a setting's batch sweep, targets "
        f"{_percent(TARGETS)} for {', '.join(NAMES)}: **{met} of {len(fitted)} settings meet all four**; "
        f"{each}. Median of the settings' medians: {_percent(_middle(fitted))}.",
        "",
    ]


def _middle(errors: Sequence[Errors]) -> Floats:
    medians: Floats = np.median([each.medians for each in errors], axis=0)
    return medians


def _pooled(errors: Sequence[Errors]) -> Floats:
    columns = [
        np.concatenate([getattr(each, name) for each in errors])
        for name in ("joules_per_token", "throughput", "itl", "watts")
    ]
    return np.array([np.median(np.abs(column)) for column in columns])


def _percent(values: Floats) -> str:
    return " / ".join(f"{100 * value:.1f} %" for value in values)


def _cell(error: float, target: float) -> str:
    text = f"{100 * error:.1f} %"
    return text if error <= target else f"**{text}**"


def put(path: Path, text: str, begin: str = BEGIN, end: str = END) -> None:
    """Replace what stands between the marks of a page; raises :class:`TableError` without them."""
    page = path.read_text("utf-8")
    if begin not in page or end not in page:
        raise TableError(f"{path}: the marks {begin} and {end} are needed")
    before, rest = page.split(begin, 1)
    path.write_text(f"{before}{begin}\n\n{text}\n\n{end}{rest.split(end, 1)[1]}", "utf-8")


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")


def main() -> int:
    """The program; exit status 2 for input that cannot be used."""
    parser = argparse.ArgumentParser(prog="python -m tests.calibration.report", description=__doc__)
    parser.add_argument("table", type=Path, help="CSV, in the columns of tests.calibration.published")
    parser.add_argument("--docs", type=Path, help="folder of simulator.md; else the table goes to stdout")
    parser.add_argument("--only", default="", help="only settings whose profile's name contains this")
    given = parser.parse_args()
    try:
        groups = read(given.table)
        chosen = {s: p for s, p in groups.items() if given.only in fit.file_name(s)}
        found = outcomes(chosen, _say)
        text = table(found)
        if given.docs is None:
            sys.stdout.write(text + "\n")
            return 0
        put(given.docs / "simulator.md", text)
    except (TableError, ProfileError, OSError) as error:
        sys.stderr.write(f"report: {error}\n")
        return 2
    from tests.calibration import plots  # matplotlib is slow to import, and an optional extra

    for path in plots.draw(found, given.docs / "img"):
        sys.stdout.write(f"written: {path}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
