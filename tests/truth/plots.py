"""The picture of docs/accuracy.md: distributions of the error, by policy."""

from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from tests.truth.harness import Row

SHOWN = ("medium", "heavy", "large GPU, overloaded", "all of it")
COLOURS = {"overlap": "#b0563b", "tokens": "#c9a227", "steps": "#1f6f78"}


def draw(path: Path, rows: list[Row]) -> None:
    """Write the SVG, the same bytes for the same rows."""
    with mpl.rc_context({"svg.hashsalt": "jouleproxy", "font.size": 9.0}):
        figure = Figure(figsize=(9.0, 2.6), layout="constrained")
        FigureCanvasSVG(figure)
        all_axes = figure.subplots(1, len(SHOWN), sharey=True)
        for axes, name in zip(all_axes, SHOWN, strict=True):
            for row in (row for row in rows if row.case == name):
                share = (np.arange(len(row.errors)) + 1.0) / len(row.errors)
                error = np.maximum(row.errors, 1e-4)
                axes.step(error, share, where="post", color=COLOURS[row.policy], label=row.policy, lw=1.6)
            axes.set_xscale("log")
            axes.set_xlim(1e-4, 5.0)
            axes.set_ylim(0.0, 1.0)
            axes.set_xticks([1e-4, 1e-3, 1e-2, 1e-1, 1.0], ["0.01 %", "0.1 %", "1 %", "10 %", "100 %"])
            axes.tick_params(axis="x", labelrotation=40)
            axes.minorticks_off()
            axes.set_title(name, fontsize=9.0)
            axes.grid(color="#dddddd", lw=0.6)
            axes.spines[["top", "right"]].set_visible(False)
        all_axes[0].set_ylabel("share of requests")
        handles, labels = all_axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, frameon=False, loc="outside right center")
        figure.supxlabel("error of a request's joules, at most", fontsize=9.0)
        figure.savefig(path, format="svg", metadata={"Date": None})
