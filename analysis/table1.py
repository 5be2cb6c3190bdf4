"""Table 1: the data sets, with the paper's counts beside ours."""

import pandas as pd

from analysis.labels import Label, dataset_label, in_paper_order
from analysis.paper import SOURCE, known, paper_entry
from analysis.tables import ABSENT, Entry, Line, Table

NAME = "table1"
TITLE = "The data sets: after the filtering that was asked for when they were prepared."
STATISTICS = {
    "users": ("Users", "{:,.0f}"),
    "items": ("Items", "{:,.0f}"),
    "interactions": ("Interactions", "{:,.0f}"),
    "texts": ("Texts", "{:,.0f}"),
    "images": ("Images", "{:,.0f}"),
    "average length": ("Avg. length", "{:.2f}"),
}
"""Of a study file: the paper's name, and the format."""


def table1(rows: pd.DataFrame) -> Table:
    """A column per data set of the rows, two where the paper has it. A count that no study recorded is absent."""
    datasets = in_paper_order(list(rows["dataset"]))
    printed = known(NAME, tuple(datasets))
    labels, spans = [], []
    for dataset in datasets:
        beside = dataset in printed
        labels += [Label("paper", "paper"), Label("ours", "ours")] if beside else [Label("ours", "ours")]
        spans.append((dataset_label(dataset), 2 if beside else 1))
    lines = []
    for name, (title, form) in STATISTICS.items():
        entries: list[Entry] = []
        for dataset in datasets:
            entries += [paper_entry(NAME, dataset, title, "paper", form)] if dataset in printed else []
            entries.append(Entry(mean=_recorded(rows, dataset, f"data/{name}"), form=form))
        lines.append(Line(dataset="", metric=title, entries=tuple(entries)))
    absent = any(entry.mean is None for line in lines for entry in line.entries)
    remarks = [f"{ABSENT}: not recorded."] if absent else []
    remarks += ["For Toys the paper prints 169,597 interactions, which its average length contradicts."] * (
        "toys" in [dataset.lower() for dataset in printed]
    )
    return Table(
        name=NAME,
        title=TITLE,
        conditions=f"Paper: {SOURCE}, Table 1." if printed else "",
        heads=("", "Statistic"),
        labels=tuple(labels),
        spans=tuple(spans),
        groups=(tuple(lines),),
        notes=(),
        remarks=tuple(remarks),
        repeated=False,
    )


def _recorded(rows: pd.DataFrame, dataset: str, column: str) -> float | None:
    found = rows.loc[rows["dataset"] == dataset, column].dropna() if column in rows else pd.Series(dtype=float)
    return float(found.iloc[0]) if len(found) else None
