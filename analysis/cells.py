"""Rows -> cells: what a table or a figure shows for one method on one data set, over its seeds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import pandas as pd

from analysis.labels import COMPONENTS, FULL, METHOD_LABELS, dataset_label, in_paper_order
from analysis.rows import METRICS

State = Literal["done", "failed", "running", "pending", "absent"]
SPLIT_NAMES = {"valid": "validation", "test": "test"}


@dataclass(frozen=True, kw_only=True)
class Cell:
    """Mean and sample standard deviation over the seeds that are done (`sd` is empty for fewer than two).

    `state` is "done" as soon as one seed is; else the worst news of its seeds, "absent" if the study does not have it.
    """

    state: State
    mean: dict[str, float] = field(default_factory=dict)
    sd: dict[str, float] = field(default_factory=dict)
    seeds: tuple[int, ...] = ()
    """The seeds that are done."""
    planned: tuple[int, ...] = ()
    notes: tuple[str, ...] = ()
    """What a reader has to know beside the number."""
    shared: bool = False
    """The cell shows the full model's own runs, as where the data set lacks what the variant removes."""
    runs: tuple[str, ...] = ()
    """The keys of its runs, done or not, in the order of `planned`."""


ABSENT = Cell(state="absent")


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """The cells of some methods by (data set, method), and what holds for all of them."""

    methods: tuple[str, ...]
    datasets: tuple[str, ...]
    cells: dict[tuple[str, str], Cell]
    conditions: str
    """Seeds, profile, selection and split in plain sentences."""
    remarks: tuple[str, ...]
    """Modalities that data sets lack, and cells without a number."""

    def cell(self, dataset: str, method: str) -> Cell:
        return self.cells.get((dataset, method), ABSENT)

    @property
    def repeated(self) -> bool:
        """Whether any number is a mean of several."""
        return any(cell.sd for cell in self.cells.values())


def compare(rows: pd.DataFrame, methods: Sequence[str], split: str = "test") -> Comparison:
    """The comparison of `methods` on every data set of the rows. `split` is "valid" or "test"."""
    datasets = in_paper_order(list(rows["dataset"]))
    wanted = rows[rows["method"].isin(methods)]
    full = {
        (d, s): key
        for d, s, key in rows.loc[rows["method"] == FULL, ["dataset", "seed", "run_key"]].itertuples(index=False)
    }
    shown = {metric: f"{split}/{metric}" for metric in METRICS}
    cells = {
        (dataset, method): cell_of(part, shown, shared=method != FULL and _same_runs(part, full))
        for (dataset, method), part in wanted.groupby(["dataset", "method"], sort=False)
    }
    return Comparison(
        methods=tuple(methods),
        datasets=tuple(datasets),
        cells=cells,
        conditions=conditions(wanted, split),
        remarks=(*_lacking(rows, datasets), *unfinished(wanted, methods, datasets)),
    )


def _same_runs(part: pd.DataFrame, full: Mapping[tuple[str, int], str]) -> bool:
    """Whether the rows show the full model's runs, whose keys `full` holds by (data set, seed)."""
    runs = zip(part["dataset"], part["seed"], part["run_key"], strict=True)
    return all(full.get((dataset, seed)) == key for dataset, seed, key in runs)


def cell_of(part: pd.DataFrame, shown: Mapping[str, str], shared: bool = False) -> Cell:
    """The cell of these rows, which differ in their seeds; `shown` names the column of each of its numbers."""
    part = part.sort_values("seed")
    done = part[part["status"] == "done"]
    notes = [f"on this data set the same run as {METHOD_LABELS[FULL].plain}"] if shared else []
    troubled = part[(part["status"] == "failed") | ((part["status"] != "done") & part["error"].notna())]
    for (status, error), rows in troubled.fillna({"error": "no reason recorded"}).groupby(
        ["status", "error"], sort=False
    ):
        which = f" ({_seeds(rows['seed'])})" if len(part) > 1 else ""
        notes.append(f"{status}{which}: {error}")
    if len(done) and len(done) < len(part):
        notes.append(f"{_seeds(done['seed'])} only, of {len(part)}")
    columns = {name: done[column] for name, column in shown.items()}
    return Cell(
        state=next((s for s in ("done", "failed", "running") if (part["status"] == s).any()), "pending"),
        mean={name: float(values.mean()) for name, values in columns.items()} if len(done) else {},
        sd={name: float(values.std(ddof=1)) for name, values in columns.items()} if len(done) > 1 else {},
        seeds=tuple(done["seed"]),
        planned=tuple(part["seed"]),
        notes=tuple(notes),
        shared=shared,
        runs=tuple(part["run_key"]),
    )


def conditions(rows: pd.DataFrame, split: str) -> str:
    """Seeds, profile, selection and split in plain sentences."""
    selected = "Checkpoints selected by validation NDCG@10"
    return " ".join([*asked(rows), f"{selected}; scores on the {SPLIT_NAMES[split]} split, all items ranked."])


def asked(rows: pd.DataFrame) -> list[str]:
    """Seeds and profile in plain sentences."""
    seeds = sorted(rows["seed"].unique())
    profiles = [p for p in rows["profile"].dropna().unique() if p]
    overrides = [o for o in rows["overrides"].dropna().unique() if o]
    parts = []
    if len(seeds) > 1:
        parts.append(f"Mean ± standard deviation over {_seeds(seeds)}.")
    elif seeds:
        parts.append(f"One seed ({seeds[0]}).")
    if profiles:
        changed = f" with {'; '.join(overrides)}" if overrides else ""
        parts.append(f"Profile {', '.join(profiles)}{changed}.")
    return parts


def _lacking(rows: pd.DataFrame, datasets: Sequence[str]) -> list[str]:
    """A sentence per data set on which the full model had fewer behaviour signals than it has by design."""
    remarks = []
    for dataset in datasets:
        runs = rows[(rows["dataset"] == dataset) & (rows["method"] == FULL)]
        used = {component for had in runs["components"].dropna() for component in had.split("+")}
        without = [component for component in COMPONENTS if component not in used]
        if used and without:
            remarks.append(
                f"On {dataset_label(dataset)} every model does without the {' and the '.join(without)} signal."
            )
    return remarks


def unfinished(rows: pd.DataFrame, methods: Sequence[str], datasets: Sequence[str]) -> list[str]:
    """What is missing, by name."""
    if rows.empty:
        names = ", ".join(METHOD_LABELS[m].plain for m in methods)
        return [f"Nothing to show: the study has no cell of {names}."]
    missing = []
    for dataset in datasets:
        names = []
        for method in methods:
            part = rows[(rows["dataset"] == dataset) & (rows["method"] == method)]
            left = part[part["status"].isin(("pending", "running"))]
            if len(left):
                names.append(METHOD_LABELS[method].plain + (f" ({_seeds(left['seed'])})" if len(part) > 1 else ""))
        if names:
            missing.append(f"{dataset_label(dataset)}: {', '.join(names)}")
    return [f"Without a result so far: {'; '.join(missing)}."] if missing else []


def _seeds(seeds: Sequence[int]) -> str:
    """ "seed 3", "seeds 0–4", "seeds 0, 2"."""
    ordered = sorted(int(s) for s in seeds)
    if len(ordered) == 1:
        return f"seed {ordered[0]}"
    if len(ordered) > 2 and ordered == list(range(ordered[0], ordered[-1] + 1)):
        return f"seeds {ordered[0]}–{ordered[-1]}"
    return f"seeds {', '.join(map(str, ordered))}"
