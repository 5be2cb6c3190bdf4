"""Figure 3 of the paper: scores by one config field at a time, a panel per field, a row of panels per data set."""

import textwrap
from dataclasses import dataclass

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from analysis.cells import SPLIT_NAMES, Cell, asked, cell_of
from analysis.figures import COLOURS, INCHES, style
from analysis.labels import FULL, METHOD_LABELS, METRIC_LABELS, Label, dataset_label, in_paper_order
from analysis.rows import METRICS

AXES = {
    "quantizer.levels": "Length $L$",
    "quantizer.codes": "Codebook size $N$",
    "quantizer.width": "Codebook width $D$",
    "recommender.buckets": "Similarity buckets $K$",
}
"""The paper's fields; others are called as in the config."""
SIGNS_PER_INCH = 24
"""Of the line below the panels."""
MARKERS = ("o", "s", "^", "D")


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One field on one data set: its values in order with their cells. `base`: the value of the run that other fields'
    panels show, too, None if there is none."""

    dataset: str
    method: str
    label: str
    field: str
    points: tuple[tuple[str, Cell], ...]
    base: str | None


def panels(rows: pd.DataFrame, split: str = "test") -> list[Panel]:
    """The panels of a study whose settings name one field each; other settings have none."""
    single = rows[rows["setting"].map(lambda setting: str(setting or "").count("=") == 1)]
    if single.empty:
        return []
    named = single.assign(field=single["setting"].str.partition("=")[0], value=single["setting"].str.partition("=")[2])
    shown = {metric: f"{split}/{metric}" for metric in METRICS}
    found = []
    for dataset in in_paper_order(list(named["dataset"])):
        for method, own in named[named["dataset"] == dataset].groupby("method", sort=False):
            fields = own.groupby("run_key")["field"].nunique()
            common = set(fields[fields > 1].index)
            for field, part in own.groupby("field", sort=False):
                points = {value: cell_of(cell, shown) for value, cell in part.groupby("value", sort=False)}
                base = part.loc[part["run_key"].isin(common), "value"].unique()
                found.append(
                    Panel(
                        dataset=dataset,
                        method=str(method),
                        label=str(part["label"].iloc[0]),
                        field=str(field),
                        points=tuple(sorted(points.items(), key=lambda point: _place(point[0]))),
                        base=str(base[0]) if len(base) == 1 else None,
                    )
                )
    return found


def figure3(rows: pd.DataFrame, split: str = "test") -> Figure | None:
    """Recall and NDCG at 5 and 10 over each field's values, with bands of a standard deviation over seeds.

    None for a study that varies no single field. The base's value is bold on the axis.
    """
    found = panels(rows, split)
    if not found:
        return None
    lines = list(dict.fromkeys((panel.dataset, panel.method) for panel in found))
    fields = list(dict.fromkeys(panel.field for panel in found))
    with style():
        figure = Figure(figsize=(max(3.2, INCHES * len(fields) / 4), 0.55 + 1.75 * len(lines)), layout="constrained")
        FigureCanvasAgg(figure)
        grid = figure.subplots(len(lines), len(fields), squeeze=False, sharey="row")
        for axes in grid.flatten():
            axes.set_visible(False)
        for panel in found:
            axes = grid[lines.index((panel.dataset, panel.method)), fields.index(panel.field)]
            axes.set_visible(True)
            _draw(axes, panel)
            if panel.field == fields[0]:
                axes.set_ylabel(_row_name(panel))
        handles, labels = _legend_of(grid.flatten())
        figure.legend(handles, labels, loc="outside upper center", ncols=len(METRICS), columnspacing=1.4)
        for axes in grid.flatten():
            axes.set_ylim(bottom=0)
        said = textwrap.fill(_said(found, rows, split), int(SIGNS_PER_INCH * figure.get_figwidth()))
        figure.supxlabel(said, fontsize=6.5, color="#444444", x=0.01, ha="left")
    return figure


def _draw(axes: Axes, panel: Panel) -> None:
    values = [value for value, _ in panel.points]
    for place, metric in enumerate(METRICS):
        done = [(x, cell) for x, (_, cell) in enumerate(panel.points) if cell.mean]
        xs, means = [x for x, _ in done], [cell.mean[metric] for _, cell in done]
        style_of = {"color": COLOURS[place], "marker": MARKERS[place], "markersize": 3.2, "linewidth": 1.0}
        axes.plot(xs, means, label=METRIC_LABELS[metric], **style_of)
        if any(cell.sd for _, cell in done):
            sds = [cell.sd.get(metric, 0.0) for _, cell in done]
            low = [mean - sd for mean, sd in zip(means, sds, strict=True)]
            high = [mean + sd for mean, sd in zip(means, sds, strict=True)]
            axes.fill_between(xs, low, high, color=COLOURS[place], alpha=0.18, linewidth=0)
    for x, (_, cell) in enumerate(panel.points):
        if not cell.mean:
            text = {"rotation": 90, "ha": "center", "va": "bottom", "fontsize": 6.5, "color": "#444444"}
            axes.annotate(cell.state, (x, 0), (0, 2), textcoords="offset points", **text)
    axes.set_xlim(-0.4, len(values) - 0.6)
    axes.set_xticks(range(len(values)), values)
    for tick, value in zip(axes.get_xticklabels(), values, strict=True):
        tick.set_fontweight("bold" if value == panel.base else "normal")
    axes.set_ylim(bottom=0, auto=None)  # the next panel of the row may be higher
    axes.set_xlabel(AXES.get(panel.field, panel.field))
    axes.grid(axis="y")


def _said(found: list[Panel], rows: pd.DataFrame, split: str) -> str:
    """Seeds, profile, split, and what bold and the bands mean."""
    words = [*asked(rows), f"Scores on the {SPLIT_NAMES[split]} split."]
    if any(panel.base for panel in found):
        words.append("Bold: the base, one run in all panels.")
    if any(cell.sd for panel in found for _, cell in panel.points):
        words.append("Bands: ± one standard deviation over seeds.")
    return " ".join(words)


def _legend_of(grid: list[Axes]) -> tuple[list, list[str]]:
    return next(axes.get_legend_handles_labels() for axes in grid if axes.get_visible())


def _row_name(panel: Panel) -> str:
    method = METHOD_LABELS.get(panel.method, Label(panel.label, panel.label)).latex
    return dataset_label(panel.dataset) + ("" if panel.method == FULL else f", {method}")


def _place(value: str) -> tuple[float, str]:
    """Numbers by size, other values after them as they are called."""
    try:
        return float(value), value
    except ValueError:
        return float("inf"), value
