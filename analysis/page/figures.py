"""Rows -> figures of the page in plain JSON types: Figures 3 and 4 and the learning curves, drawn by `charts`.

A figure has `name`, `title`, `about`, a `legend` of names and `panels`. A panel of kind "lines" has `series`, each with
`look` (its place in the legend), `points` (x, y, keys of the runs), `band` (x, low, high) and `partial`; `xs` names
the places on the axis, if they are no numbers, and `words` stand where a point is missing. One of kind "bars" has
`groups` and, for each, `bars`: look, mean, sd, word, runs.
"""

from collections.abc import Mapping

import pandas as pd

from analysis.cells import Cell, compare, conditions
from analysis.curves import METRIC
from analysis.figure3 import panels
from analysis.figures import METHODS, PANELS, bar_word, curve_names
from analysis.labels import FULL, METHOD_LABELS, METRIC_LABELS, dataset_label, in_paper_order
from analysis.page.live import Live
from analysis.page.tables import Json, method_name, text
from analysis.rows import METRICS

FIELDS = {
    "quantizer.levels": "Length L",
    "quantizer.codes": "Codebook size N",
    "quantizer.width": "Codebook width D",
    "recommender.buckets": "Similarity buckets K",
}


def figure3(rows: pd.DataFrame) -> Json | None:
    """Scores by one field at a time; None for a study that varies none."""
    found = panels(rows)
    if not found:
        return None
    drawn = []
    for panel in found:
        places = list(enumerate(panel.points))
        drawn.append(
            {
                "kind": "lines",
                "title": f"{dataset_label(panel.dataset)}: {FIELDS.get(panel.field, panel.field)}"
                + ("" if panel.method == FULL else f" ({method_name(panel.method, panel.label)})"),
                "x_label": FIELDS.get(panel.field, panel.field),
                "y_label": "Score on the test split",
                "xs": [value for value, _ in panel.points],
                "bold": panel.base,
                "words": [[x, cell.state] for x, (_, cell) in places if not cell.mean],
                "series": [
                    _line(look, metric, [(x, cell) for x, (_, cell) in places if cell.mean])
                    for look, metric in enumerate(METRICS)
                ],
            }
        )
    about = [conditions(rows, "test")]
    about += ["Bold on the axis: the base, one run in all panels."] if any(p.base for p in found) else []
    about += ["Bands: ± one standard deviation over seeds."] if any(c.sd for p in found for _, c in p.points) else []
    return {
        "name": "figure3",
        "title": "Figure 3: one field at a time",
        "about": " ".join(about),
        "legend": [METRIC_LABELS[metric] for metric in METRICS],
        "panels": drawn,
    }


def _line(look: int, metric: str, done: list[tuple[int, Cell]]) -> Json:
    sd = any(cell.sd for _, cell in done)
    return {
        "look": look,
        "name": METRIC_LABELS[metric],
        "points": [[x, cell.mean[metric], ",".join(dict.fromkeys(cell.runs))] for x, cell in done],
        "band": [
            [x, cell.mean[metric] - (s := cell.sd.get(metric, 0.0)), cell.mean[metric] + s] for x, cell in done if sd
        ],
        "partial": False,
    }


def figure4(rows: pd.DataFrame) -> Json:
    """The full model and its variants without one signal."""
    comparison = compare(rows, METHODS)
    drawn = []
    for metric, title in PANELS.items():
        groups = []
        for dataset in comparison.datasets:
            cells = [comparison.cell(dataset, method) for method in METHODS]
            groups.append({"name": dataset_label(dataset), "bars": [_bar(x, c, metric) for x, c in enumerate(cells)]})
        drawn.append({"kind": "bars", "title": title, "y_label": f"{title} on the test split", "groups": groups})
    about = " ".join([comparison.conditions, *comparison.remarks])
    if comparison.repeated:
        about += " Error bars: ± one standard deviation over seeds."
    return {
        "name": "figure4",
        "title": "Figure 4: without one behaviour signal",
        "about": about,
        "legend": [METHOD_LABELS[method].plain for method in METHODS],
        "panels": drawn,
    }


def _bar(look: int, cell: Cell, metric: str) -> Json:
    shown = not cell.shared
    return {
        "look": look,
        "mean": cell.mean.get(metric) if shown else None,
        "sd": cell.sd.get(metric) if shown else None,
        "word": bar_word(cell, metric),
        "runs": ",".join(dict.fromkeys(cell.runs)),
    }


def learning_curves(name: str, curves: pd.DataFrame, rows: pd.DataFrame, live: Mapping[str, Live]) -> Json | None:
    """Validation NDCG@10 by epoch, a panel per data set; runs at work as far as they are. None without any curve."""
    partial = _partial(rows, live)
    frame = pd.concat([f for f in (curves.assign(partial=False), partial) if len(f)] or [partial])
    if frame.empty:
        return None
    frame = frame.assign(name=curve_names(frame, "plain"))
    names = list(dict.fromkeys(frame["name"]))
    drawn = []
    for dataset in in_paper_order(list(frame["dataset"])):
        part = frame[frame["dataset"] == dataset].drop_duplicates(["name", "seed", "epoch"])
        several = part["seed"].nunique() > 1
        series = []
        for (called, seed, key), run in part.groupby(["name", "seed", "run_key"], sort=False):
            run = run.sort_values("epoch")
            points = zip(run["epoch"].tolist(), run[METRIC].tolist(), strict=True)
            series.append(
                {
                    "look": names.index(called),
                    "name": f"{called}, seed {seed}" if several else called,
                    "points": [[x, y, key] for x, y in points],
                    "band": [],
                    "partial": bool(run["partial"].any()),
                    "best": int(run[METRIC].to_numpy().argmax()),
                }
            )
        drawn.append(
            {
                "kind": "lines",
                "title": dataset_label(dataset),
                "x_label": "Epoch",
                "y_label": "Validation NDCG@10",
                "series": series,
                "words": [],
            }
        )
    return {
        "name": f"curves-{name}",
        "title": "Learning curves",
        "about": "Validation NDCG@10 by epoch, a line per run; the dot is the checkpoint that was selected. "
        + ("Dashed: runs at work, so far." if any(s["partial"] for p in drawn for s in p["series"]) else ""),
        "legend": names,
        "panels": drawn,
    }


def _partial(rows: pd.DataFrame, live: Mapping[str, Live]) -> pd.DataFrame:
    """The curves of the runs at work, in the columns of curves."""
    lines = [
        {"dataset": row["dataset"], "method": row["method"], "label": row["label"], "seed": row["seed"]}
        | {"setting": text(row["setting"]) or "", "run_key": row["run_key"]}
        | {"epoch": epoch, METRIC: score, "partial": True}
        for row in rows.to_dict("records")
        if row["run_key"] in live
        for epoch, score in live[row["run_key"]].curve
    ]
    return pd.DataFrame(lines)
