"""What a study cost, each run counted once, and what its cells would have cost without sharing.

A cell shows a recommender (or, in a study of quantizers, a quantizer) and rests on the runs behind it: its quantizer
and, where that one is taught, its teacher. Alone it would pay for all of them; in the study, cells that rest on the
same run pay for it in equal parts, so that the shares of all cells add up to what the study cost. Costs are seconds of
work (training and judging), which every version recorded; wall and device seconds are in the rows, as far as recorded.
"""

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis.labels import dataset_label
from analysis.markup import markdown_document

STAGES = ("teacher", "quantizer", "recommender")
CELL = ("dataset", "method", "label", "seed", "setting")
GROUP = ("dataset", "label", "setting")
KEYS = tuple(f"{stage}_key" for stage in STAGES)
SECONDS = tuple(f"{stage}_seconds" for stage in STAGES)
UNITS = (("hours", 3600, 3600), ("minutes", 60, 300), ("seconds", 1, 0))
"""Of a table: name, seconds, and the sum from which on it is used."""


@dataclass(frozen=True, kw_only=True)
class StudyCost:
    """`runs` are distinct, `asked` is their number if none were shared; `unknown` runs recorded no seconds."""

    cells: int
    runs: int
    asked: int
    seconds: float
    alone_seconds: float
    unknown: int
    held: int = 0
    """Of the runs those that were there before, and their seconds."""
    held_seconds: float = 0.0


def cell_costs(rows: pd.DataFrame) -> pd.DataFrame:
    """A row per cell that is done: which it is, key and seconds of each of its runs, and

    alone_seconds     what it would have cost by itself
    shared_seconds    its share of the study: each run divided by the number of cells that rest on it

    A run that recorded no seconds counts as none, and its own column is NaN.
    """
    done = rows[rows["status"] == "done"].reset_index(drop=True)
    frame = done.reindex(columns=list(CELL))
    quantizers = done["stage"] == "quantizer"
    frame["teacher_key"] = _text(done, "teacher_key")
    frame["quantizer_key"] = done["quantizer_key"].where(~quantizers, done["run_key"])
    frame["recommender_key"] = done["run_key"].where(~quantizers, None)
    for stage in STAGES:
        frame[f"{stage}_seconds"] = _seconds(done, f"costs/{stage}_seconds").where(frame[f"{stage}_key"].notna())
    frame["quantizer_seconds"] = frame["quantizer_seconds"].where(~quantizers, _seconds(done, "costs/seconds"))
    runs = run_costs(frame)
    part = runs["seconds"].fillna(0.0) / runs["cells"]
    frame["alone_seconds"] = sum((frame[k].map(runs["seconds"]).fillna(0.0) for k in KEYS), np.zeros(len(frame)))
    frame["shared_seconds"] = sum((frame[k].map(part).fillna(0.0) for k in KEYS), np.zeros(len(frame)))
    return frame


def run_costs(cells: pd.DataFrame) -> pd.DataFrame:
    """The distinct runs of `cell_costs` by key: stage, seconds (NaN if unknown), and how many cells rest on each.

    A teacher that is a cell's own recommender too is one run.
    """
    parts = [
        pd.DataFrame({"key": cells[key], "stage": stage, "seconds": cells[seconds], "cell": cells.index})
        for stage, key, seconds in zip(STAGES, KEYS, SECONDS, strict=True)
    ]
    uses = pd.concat(parts[::-1]).dropna(subset="key")  # recommenders first: a teacher is one
    return uses.groupby("key", sort=False).agg(
        stage=("stage", "first"), seconds=("seconds", "first"), cells=("cell", "count")
    )


def study_cost(rows: pd.DataFrame, held: Collection[str] = ()) -> StudyCost:
    """The totals of a study's rows. `held` are keys of runs that were in the store before the study began."""
    cells = cell_costs(rows)
    runs = run_costs(cells)
    before = runs[runs.index.isin(list(held))]
    return StudyCost(
        cells=len(cells),
        runs=len(runs),
        asked=int(sum(cells[key].notna().sum() for key in KEYS)),
        seconds=float(runs["seconds"].sum()),
        alone_seconds=float(cells["alone_seconds"].sum()),
        unknown=int(runs["seconds"].isna().sum()),
        held=len(before),
        held_seconds=float(before["seconds"].sum()),
    )


def sentence(rows: pd.DataFrame, held: Collection[str] = ()) -> str:
    """The cost of a study in a line: "cost: 0.42 h of computing (16 runs); without sharing 0.71 h (34 runs)"."""
    cost = study_cost(rows, held)
    if cost.unknown == cost.runs:
        return "cost: no run has recorded its seconds"
    words = [f"cost: {duration(cost.seconds)} of computing ({_counted(cost.runs, 'run')})"]
    words.append(f"without sharing {duration(cost.alone_seconds)} ({_counted(cost.asked, 'run')})")
    if cost.held:
        words.append(f"{_counted(cost.held, 'run')} ({duration(cost.held_seconds)}) were in the store before")
    if cost.unknown:
        words.append(f"{_counted(cost.unknown, 'run')} recorded no seconds")
    if missing := len(rows) - cost.cells:
        words.append(f"not counted: {_counted(missing, 'cell')} without a result")
    return "; ".join(words)


def costs_markdown(rows: pd.DataFrame) -> str:
    """The costs by data set and method, all seeds together, in the unit of UNITS that suits the study's size."""
    cells = cell_costs(rows)
    unit, length = next((u, length) for u, length, least in UNITS if cells["alone_seconds"].sum() >= least)
    columns = [*SECONDS, "alone_seconds", "shared_seconds"]
    body = []
    for (dataset, label, setting), part in cells.fillna({"setting": ""}).groupby(list(GROUP), sort=False):
        name = f"{label} {setting}".strip()
        body.append([dataset_label(dataset), name, str(len(part)), *_figures(part[columns], length)])
    if len(cells):
        # A column of a stage sums what the cells show; what they share is in it more than once.
        body.append(["all", "", str(len(cells)), *_figures(cells[columns], length)])
    header = ["Dataset", "Method", "cells", *STAGES, "alone", "shared"]
    remarks = [
        "A stage's column and `alone` pay for every run that a cell rests on, as if nothing were shared; `shared` "
        "divides each run among the cells that rest on it, so that its sum is what the study cost.",
        _recorded(rows),
    ]
    caption = f"{sentence(rows).capitalize()}. Below: {unit} of work, all seeds together."
    return markdown_document(caption, header, body, [], [text for text in remarks if text])


def duration(seconds: float) -> str:
    """0.42 h, 4.2 min or 12.3 s."""
    if seconds >= 360:
        return f"{seconds / 3600:.2f} h"
    return f"{seconds / 60:.1f} min" if seconds >= 60 else f"{seconds:.1f} s"


def _recorded(rows: pd.DataFrame) -> str:
    """A sentence on wall and device time of the distinct runs that recorded it."""
    done, known, of = rows[rows["status"] == "done"], 0, 0
    sums = dict.fromkeys(("wall_seconds", "core_seconds", "gpu_seconds"), 0.0)
    for stage, key in (("quantizer", "quantizer_key"), ("recommender", "run_key")):
        quantizers = (done["stage"] == "quantizer").any()
        if quantizers and stage == "recommender":
            continue
        runs = done.dropna(subset=[key]).drop_duplicates(key)
        columns = {name: f"costs/{name}" if quantizers else f"costs/{stage}_{name}" for name in sums}
        values = pd.DataFrame({name: _seconds(runs, column) for name, column in columns.items()}).dropna()
        known, of = known + len(values), of + len(runs)
        sums = {name: total + values[name].sum() for name, total in sums.items()}
    if not known:
        return ""
    wall, cores, gpus = (total / 3600 for total in sums.values())
    which = "All runs" if known == of else f"{known} of the {of} runs"
    return f"{which} without teachers: {wall:.3f} h of wall time, {cores:.3f} core hours, {gpus:.3f} GPU hours."


def _figures(part: pd.DataFrame, length: int) -> list[str]:
    return [f"{value / length:.2f}" if part[name].notna().any() else "-" for name, value in part.sum().items()]


def _seconds(rows: pd.DataFrame, column: str) -> pd.Series:
    return rows[column] if column in rows else pd.Series(float("nan"), index=rows.index)


def _text(rows: pd.DataFrame, column: str) -> pd.Series:
    return rows[column] if column in rows else pd.Series(None, index=rows.index, dtype=object)


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
