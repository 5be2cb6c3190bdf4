"""Figure 4 of the paper and the learning curves. The same rows make the same bytes: no file tells the time."""

import io
import math
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import cycle
from pathlib import Path

import matplotlib
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from analysis.cells import Cell, Comparison, compare
from analysis.curves import METRIC
from analysis.labels import METHOD_LABELS, Label, dataset_label, in_paper_order

METHODS = ("bbqrec", "bbqrec/no-id", "bbqrec/no-text", "bbqrec/no-image")
PANELS = {"recall@10": "Recall@10", "ndcg@10": "NDCG@10"}
BAR = 0.2
"""Width of a bar, with 1 from data set to data set."""
INCHES = 7.0
"""Width of a page of the paper; figures of few data sets are narrower."""

# Okabe and Ito's colours, told apart with every kind of colour blindness; hatches tell them apart in grey.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#E69F00", "#56B4E9", "#CC79A7", "#000000", "#999999", "#8C6D1F")
HATCHES = ("", "////", "....", "\\\\\\\\")
LINES = ("-", "--", "-.", ":")

STYLE = {
    "font.family": "STIXGeneral",  # comes with matplotlib, so every machine draws the same letters
    "mathtext.fontset": "stix",
    "font.size": 8,
    "axes.titlesize": 9,
    "axes.labelsize": 9,
    "legend.fontsize": 8,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8,
    "axes.linewidth": 0.6,
    "hatch.linewidth": 0.5,
    "hatch.color": "white",
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.linewidth": 0.4,
    "grid.color": "#DDDDDD",
    "legend.frameon": False,
    "pdf.fonttype": 42,  # whole TrueType outlines: editors and publishers ask for them
    "savefig.dpi": 200,
    "figure.dpi": 100,
}


def figure4(rows: pd.DataFrame, split: str = "test") -> Figure:
    """Grouped bars of the full model and its variants without one behaviour signal; error bars over seeds.

    A bar that is missing is a word in its place; a variant that is the full model's own run on a data set gets no bar.
    """
    comparison = compare(rows, METHODS, split)
    groups = max(1, len(comparison.datasets))
    with style():
        width = min(INCHES, max(4.4, 1.0 + 1.6 * groups))
        figure = Figure(figsize=(width, 2.5), layout="constrained")
        FigureCanvasAgg(figure)
        for axes, (metric, title) in zip(figure.subplots(1, len(PANELS)), PANELS.items(), strict=True):
            _bars(axes, comparison, metric)
            axes.set_ylabel(title)
        figure.legend(
            handles=[_swatch(place, method) for place, method in enumerate(METHODS)],
            loc="outside upper center",
            ncols=len(METHODS),
            handlelength=1.6,
            columnspacing=1.4,
        )
        notes = _notes(comparison)
        if notes:
            figure.supxlabel("\n".join(notes), fontsize=6.5, color="#444444", x=0.01, ha="left")
    return figure


def learning_curves(curves: pd.DataFrame) -> Figure:
    """Validation NDCG@10 by epoch: a panel per data set, a line per method, setting and seed, a dot where selected.

    Settings that share their runs are one line.
    """
    datasets = in_paper_order(list(curves["dataset"])) or [""]
    curves = curves.assign(name=curve_names(curves)).drop_duplicates(["dataset", "name", "seed", "epoch"])
    names = list(dict.fromkeys(curves["name"]))
    looks = dict(zip(names, zip(cycle(LINES), cycle(COLOURS), strict=False), strict=False))
    columns = min(2, len(datasets))
    lines = math.ceil(len(datasets) / columns)
    with style():
        figure = Figure(figsize=(2.0 + 3.2 * columns, 0.3 + 2.4 * lines), layout="constrained")
        FigureCanvasAgg(figure)
        grid = figure.subplots(lines, columns, squeeze=False)
        panels = grid.flatten()[: len(datasets)]
        for unused in grid.flatten()[len(datasets) :]:
            unused.remove()
        for axes, dataset in zip(panels, datasets, strict=True):
            part = curves[curves["dataset"] == dataset]
            for (name, _), run in part.groupby(["name", "seed"], sort=False):
                line, colour = looks[name]
                run = run.sort_values("epoch")
                best = run.loc[run[METRIC].idxmax()]
                axes.plot(run["epoch"], run[METRIC], line, color=colour, linewidth=1.0, label=name)
                axes.plot(best["epoch"], best[METRIC], "o", color=colour, markersize=3)
            axes.set_title(dataset_label(dataset))
            axes.set_xlabel("Epoch")
            axes.grid(axis="y")
            axes.xaxis.get_major_locator().set_params(integer=True)
            if part.empty:
                axes.text(0.5, 0.5, "no finished run", transform=axes.transAxes, ha="center", color="#444444")
        for axes in grid[:, 0]:
            axes.set_ylabel("Validation NDCG@10")
        entries = {
            label: handle for axes in panels for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
        }
        if entries:
            figure.legend(entries.values(), entries.keys(), loc="outside right center")
    return figure


def save(figure: Figure, path: Path, subject: str = "") -> Path:
    """Writes a .pdf or .png. `subject` goes into the file's metadata; dates and versions do not."""
    if path.suffix == ".pdf":
        metadata = {"CreationDate": None, "Producer": None, "Creator": "bbqrec", "Subject": subject}
    else:
        metadata = {"Software": None, "Description": subject}
    buffer = io.BytesIO()
    with style():
        figure.savefig(buffer, format=path.suffix[1:], metadata=metadata)
    path.write_bytes(buffer.getvalue())
    return path


@contextmanager
def style() -> Iterator[None]:
    """The look of all figures, whatever the user's matplotlibrc says."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(STYLE)
        yield


def _bars(axes: Axes, comparison: Comparison, metric: str) -> None:
    for place, method in enumerate(comparison.methods):
        offset = (place - (len(comparison.methods) - 1) / 2) * BAR
        cells = [comparison.cell(dataset, method) for dataset in comparison.datasets]
        drawn = [(x + offset, cell) for x, cell in enumerate(cells) if cell.mean and not cell.shared]
        axes.bar(
            [x for x, _ in drawn],
            [cell.mean[metric] for _, cell in drawn],
            BAR * 0.92,
            color=COLOURS[place],
            hatch=HATCHES[place],
        )
        repeated = [(x, cell) for x, cell in drawn if cell.sd]
        axes.errorbar(
            [x for x, _ in repeated],
            [cell.mean[metric] for _, cell in repeated],
            [cell.sd[metric] for _, cell in repeated],
            fmt="none",
            ecolor="black",
            elinewidth=0.7,
            capsize=1.8,
            capthick=0.7,
        )
        for x, cell in enumerate(cells):
            if word := bar_word(cell, metric):
                style = {"rotation": 90, "ha": "center", "va": "bottom", "fontsize": 6.5, "color": "#444444"}
                # In points above the axis, whatever its scale turns out to be.
                axes.annotate(word, (x + offset, 0), (0, 2), textcoords="offset points", **style)
    axes.set_xticks(range(len(comparison.datasets)), [dataset_label(d) for d in comparison.datasets])
    axes.set_xlim(-0.5, max(1, len(comparison.datasets)) - 0.5)
    axes.set_ylim(bottom=0)
    axes.tick_params(axis="x", length=0)
    axes.grid(axis="y")
    if not axes.patches:  # the scale would be made up
        axes.set_yticks([])
        axes.text(0.5, 0.5, "no results yet", transform=axes.transAxes, ha="center", color="#444444")


def _swatch(place: int, method: str) -> Patch:
    """Legend entry, there also without a bar."""
    return Patch(facecolor=COLOURS[place], hatch=HATCHES[place], label=METHOD_LABELS[method].latex)


def bar_word(cell: Cell, metric: str) -> str:
    """What stands in the place of a bar, "" beside one that can be seen."""
    if cell.shared:
        return "n/a"
    if cell.mean:
        return "" if cell.mean[metric] > 0 else "0"
    return "not run" if cell.state == "absent" else cell.state


def _notes(comparison: Comparison) -> list[str]:
    """What the words mean, and which data sets lack what. Errors are in the tables and in rows.csv."""
    notes = [remark for remark in comparison.remarks if not remark.startswith("Without a result")]
    if any(cell.shared for cell in comparison.cells.values()):
        notes.append(f"n/a: the variant is the same run as {METHOD_LABELS['bbqrec'].plain}.")
    return notes


def curve_names(curves: pd.DataFrame, form: str = "latex") -> list[str]:
    """What each row's line is called: its method, and the setting if that is its run's only one."""
    settings = curves.groupby(["method", "run_key"])["setting"].transform("nunique") if len(curves) else []
    called = []
    for method, label, setting, shared in zip(
        curves["method"], curves["label"], curves["setting"], settings, strict=True
    ):
        name = getattr(METHOD_LABELS.get(method, Label(label, label)), form)
        called.append(f"{name} {setting}".strip() if shared == 1 else f"{name} (base)")
    return called
