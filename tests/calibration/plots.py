"""Plots of simulated over published points. The only file of the proxy that imports matplotlib."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import matplotlib as mpl

mpl.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from tests.calibration.fit import file_name
from tests.calibration.report import Outcome

_COLUMNS: Final = 6
_THEIRS: Final = {"color": "#c44e52", "marker": "o", "markersize": 3.5, "linestyle": "none"}
_OURS: Final = {"color": "#333333", "linewidth": 1.2}
_PREDICTED: Final = {"color": "#4c72b0", "linewidth": 0.9, "linestyle": "--"}


def draw(found: Sequence[Outcome], folder: Path) -> list[Path]:
    """Write the figures as PNG; their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for gpu in sorted({outcome.setting.gpu for outcome in found}):
        chosen = sorted((o for o in found if o.setting.gpu == gpu), key=lambda o: file_name(o.setting))
        path = folder / f"simulator-{gpu.lower()}.png"
        _grid(chosen, f"{gpu}: tokens per joule over batch size", path)
        written.append(path)
    return written


def _grid(chosen: Sequence[Outcome], title: str, path: Path) -> None:
    rows = -(-len(chosen) // _COLUMNS)
    height = 1.9 * rows + 0.6
    figure, grid = plt.subplots(rows, _COLUMNS, figsize=(2.5 * _COLUMNS, height), squeeze=False)
    axes = list(grid.flat)
    for ax, outcome in zip(axes, chosen, strict=False):
        _panel(ax, outcome)
    for ax in axes[len(chosen) :]:
        ax.axis("off")
    styles = (
        (_THEIRS, "published (ML.ENERGY v3, real GPUs)"),
        (_OURS, "simulated, fitted profile"),
        (_PREDICTED, "simulated, from parameters alone (fitted without that model)"),
    )
    lines = [Line2D([], [], label=label, **style) for style, label in styles]  # type: ignore[arg-type]
    figure.suptitle(title, fontsize=12, y=1 - 0.05 / height)
    below = (0.5, 1 - 0.25 / height)
    figure.legend(handles=lines, loc="upper center", ncols=3, fontsize=9, frameon=False, bbox_to_anchor=below)
    figure.tight_layout(rect=(0, 0, 1, 1 - 0.15 / height))
    figure.savefig(path, dpi=90, metadata={"Software": None})
    plt.close(figure)


def _panel(ax: Axes, outcome: Outcome) -> None:
    batch = [point.batch for point in outcome.points]
    ax.plot(batch, [1 / each.joules_per_token for each in outcome.predicted.ours], **_PREDICTED)  # type: ignore[arg-type]
    if outcome.fitted is not None:
        ax.plot(batch, [1 / each.joules_per_token for each in outcome.fitted.ours], **_OURS)  # type: ignore[arg-type]
    ax.plot(batch, [1 / point.joules_per_token for point in outcome.points], **_THEIRS)  # type: ignore[arg-type]
    ax.set_xscale("log", base=2)
    ax.set_ylim(bottom=0)
    ax.set_title(file_name(outcome.setting), fontsize=6.5)
    ax.tick_params(labelsize=6)
    ax.grid(alpha=0.25, linewidth=0.5)
