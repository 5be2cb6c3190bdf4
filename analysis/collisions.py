"""Table 5: items that share a semantic ID, by method and number of levels, with the paper's counts beside ours."""

from collections.abc import Iterator

import pandas as pd

from analysis.cells import ABSENT as NOT_RUN
from analysis.cells import Cell, asked, cell_of
from analysis.labels import METHOD_LABELS, Label, dataset_label, in_paper_order
from analysis.paper import SOURCE, known, paper_entry
from analysis.rows import COLLISIONS
from analysis.tables import ABSENT, Entry, Line, Table, entry, footnotes, marked
from bbqrec.errors import InputError

LEVELS = "quantizer.levels"
"""What the study varies."""
QUANTIZERS = {
    "tiger": Label("RQ-VAE", "RQ-VAE"),
    "letter": METHOD_LABELS["letter"],
    "bbqrec": METHOD_LABELS["bbqrec"],
}
"""The paper's columns: TIGER's quantizer is a plain RQ-VAE."""
NAME = "table5"
TITLE = (
    "Item collisions by the number of levels L of a semantic ID: the number of items less that of distinct IDs, as the "
    "paper counts them, of the codes before any disambiguation."
)
PLACES = (Label("paper", "paper"), Label("ours", "ours"))
COUNT, MEAN = "{:.0f}", "{:.1f}"
"""Of one seed, and over several."""


def table5(rows: pd.DataFrame) -> Table:
    """The table of a study of quantizers; without a data set of the paper it has our columns alone."""
    datasets = in_paper_order(list(rows["dataset"]))
    levels = rows["setting"].map(_levels) if len(rows) else pd.Series(dtype="int64")
    cells = {
        (dataset, number, method): cell_of(part, {COLLISIONS: COLLISIONS})
        for (dataset, number, method), part in rows.groupby(["dataset", levels, "method"], sort=False)
        if method in QUANTIZERS
    }
    notes = footnotes(note for cell in cells.values() for note in cell.notes)
    compared = bool(known(NAME, tuple(datasets)))
    groups = []
    for dataset in datasets:
        lines = []
        for number in sorted({number for d, number, _ in cells if d == dataset}):
            entries: list[Entry] = []
            for method, label in QUANTIZERS.items():
                if compared:
                    entries.append(paper_entry(NAME, dataset, f"L={number}", label.plain, COUNT))
                cell = cells.get((dataset, number, method), NOT_RUN)
                entries.append(entry(cell, COLLISIONS, notes, MEAN if cell.sd else COUNT))
            lines.append(
                Line(dataset="" if lines else dataset_label(dataset), metric=f"L={number}", entries=(*entries,))
            )
        groups += [tuple(lines)] if lines else []
    absent = any(e.word == ABSENT and e.mean is None for group in groups for line in group for e in line.entries)
    return Table(
        name=NAME,
        title=TITLE,
        conditions=" ".join([*asked(rows), *([f"Paper: {SOURCE}, Table 5."] if compared else [])]),
        heads=("Dataset", "Length"),
        labels=PLACES * len(QUANTIZERS) if compared else tuple(QUANTIZERS.values()),
        spans=tuple((label.latex, 2) for label in QUANTIZERS.values()) if compared else (),
        groups=tuple(groups),
        notes=marked(notes),
        remarks=(*_remarks(rows, cells, datasets), *([f"{ABSENT}: not run, or not in the paper."] if absent else [])),
        repeated=any(cell.sd for cell in cells.values()),
    )


def _levels(setting: object) -> int:
    """The number of levels that a setting names."""
    for pair in str(setting).split():
        name, _, value = pair.partition("=")
        if name == LEVELS and value.isdecimal():
            return int(value)
    raise InputError(f"a cell of the study has setting {setting!r}, no {LEVELS}", "run sweeps/collisions.py again")


def _remarks(rows: pd.DataFrame, cells: dict[tuple[str, int, str], Cell], datasets: list[str]) -> Iterator[str]:
    """The sizes of the catalogues, and what is missing, by name."""
    if not cells:
        yield f"Nothing to show: the study has no cell of {', '.join(label.plain for label in QUANTIZERS.values())}."
    sizes = rows.groupby("dataset")["collisions/items"].max().dropna() if "collisions/items" in rows else {}
    if len(sizes):
        yield f"Items: {', '.join(f'{dataset_label(d)} {sizes[d]:,.0f}' for d in datasets if d in sizes)}."
    left = [
        f"{dataset_label(dataset)} {QUANTIZERS[method].plain} L={number}"
        for (dataset, number, method), cell in cells.items()
        if cell.state in ("pending", "running")
    ]
    if left:
        yield f"Without a result so far: {', '.join(left)}."
