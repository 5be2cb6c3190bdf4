"""A study at a glance: a line for every data set, method and setting, whatever the study compares."""

from collections.abc import Iterator

import pandas as pd

from analysis.cells import Cell, cell_of, conditions
from analysis.labels import METHOD_LABELS, METRIC_LABELS, Label, dataset_label, in_paper_order
from analysis.rows import METRICS
from analysis.tables import BEST, DECIMALS, Line, Table, entry, footnotes, marked, placed

NAME = "overview"


def overview(rows: pd.DataFrame, split: str = "test") -> Table:
    """The table of any study of recommenders, in the order of its cells; the best of each data set are bold."""
    datasets = in_paper_order(list(rows["dataset"]))
    shown = {metric: f"{split}/{metric}" for metric in METRICS}
    cells: dict[str, dict[str, Cell]] = {}
    for (dataset, label, method, setting), part in rows.fillna({"setting": ""}).groupby(
        ["dataset", "label", "method", "setting"], sort=False
    ):
        name = METHOD_LABELS.get(method, Label(label, label)).plain
        cells.setdefault(dataset, {})[" ".join(filter(None, (name, setting)))] = cell_of(part, shown)
    every = [cell for dataset in datasets for cell in cells[dataset].values()]
    notes = footnotes(note for cell in every for note in cell.notes)
    return Table(
        name=NAME,
        title=f"All cells of study {', '.join(rows['study'].unique())}.",
        emphasis=BEST,
        conditions=conditions(rows, split),
        heads=("Dataset", "Method"),
        labels=tuple(Label(METRIC_LABELS[metric], METRIC_LABELS[metric]) for metric in METRICS),
        groups=tuple(tuple(_lines(dataset, cells[dataset], notes)) for dataset in datasets),
        notes=marked(notes),
        remarks=(),
        repeated=any(cell.sd for cell in every),
        stacked=True,
    )


def _lines(dataset: str, cells: dict[str, Cell], notes: dict[str, str]) -> Iterator[Line]:
    best = {}
    for metric in METRICS:
        values = {round(cell.mean[metric], DECIMALS) for cell in cells.values() if cell.mean}
        best[metric] = [max(values)] if len(values) > 1 else []
    for index, (name, cell) in enumerate(cells.items()):
        entries = tuple(placed(entry(cell, metric, notes), best[metric]) for metric in METRICS)
        yield Line(dataset="" if index else dataset_label(dataset), metric=name, entries=entries)
