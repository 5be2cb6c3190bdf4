"""Table 2: BBQRec against the baselines, its improvement over the best of them, and whether users bear it out."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace

import numpy as np
import pandas as pd

from analysis.cells import Comparison, compare
from analysis.labels import FULL, METHOD_LABELS, METRIC_LABELS, Label, dataset_label
from analysis.ranks import Ranks
from analysis.rows import METRICS
from analysis.significance import LEVEL, PairedTest, holm, mean_over_seeds, paired_t_test
from analysis.tables import SECOND, Entry, Table, TableSpec, table
from bbqrec.errors import InputError

GROUPS = {
    "Traditional": ("gru4rec", "bert4rec", "sasrec"),
    "Modality-fused": ("gru4rec-f", "sasrec-f", "nova-bert", "missrec"),
    "Vector-quantized": ("vq-rec", "tiger", "letter", FULL),
}
"""The paper's groups of methods, in the order of its columns."""
IMPROVEMENT = Label("Improv.", "Improv.")
PERCENT = "{:+.2f} %"

TABLE_2 = TableSpec(
    name="table2",
    title="Performance comparison of the baselines and BBQRec. Improv.: relative improvement of BBQRec over the best "
    "baseline. MISSRec and VQ-Rec are trained from scratch on each data set, without transfer from other domains.",
    methods=tuple(method for methods in GROUPS.values() for method in methods),
    spans=(*((group, len(methods)) for group, methods in GROUPS.items()), ("", 1)),
    emphasis=SECOND,
    stacked=True,
)


@dataclass(frozen=True, kw_only=True)
class Gain:
    """BBQRec against the baseline with the highest mean on one data set by one metric.

    `relative` is the improvement of the means, empty where the baseline's is 0; `test` compares the users, each with
    the mean over the `seeds` that both methods have, and `p` is its p-value after Holm's correction over the table.
    """

    dataset: str
    metric: str
    against: str
    relative: float | None
    seeds: tuple[int, ...] = ()
    test: PairedTest | None = None
    p: float | None = None

    @property
    def significant(self) -> bool:
        """Also of a loss. Not where single seeds decide: means over all seeds and over the common ones may disagree."""
        if self.p is None or self.test is None or self.relative is None:
            return False
        return self.p < LEVEL and self.test.difference * self.relative > 0


def gains(rows: pd.DataFrame, ranks: Ranks) -> list[Gain]:
    """Of every data set and metric on which BBQRec and a baseline have a result, tested where `ranks` has both."""
    comparison = compare(rows, TABLE_2.methods)
    found = [
        _tested(gain, rows, ranks)
        for dataset in comparison.datasets
        for metric in METRICS
        if (gain := _gain(comparison, dataset, metric)) is not None
    ]
    corrected = iter(holm([gain.test.p for gain in found if gain.test is not None]))
    return [gain if gain.test is None else replace(gain, p=next(corrected)) for gain in found]


def table2(rows: pd.DataFrame, ranks: Ranks) -> Table:
    """The table on the test split. Cells without a number are shown as such; improvements are over those with one."""
    made = table(rows, TABLE_2)
    compared = gains(rows, ranks)
    found = {(dataset_label(gain.dataset), METRIC_LABELS[gain.metric]): gain for gain in compared}
    groups = []
    for group in made.groups:
        lines = [replace(x, entries=(*x.entries, _entry(found.get((group[0].dataset, x.metric))))) for x in group]
        groups.append(tuple(lines))
    return replace(
        made,
        labels=(*made.labels, IMPROVEMENT),
        groups=tuple(groups),
        remarks=(*made.remarks, *_left_out(rows, compared), *_remarks(compared)),
    )


def gains_frame(compared: list[Gain]) -> pd.DataFrame:
    """A row per gain, for significance.csv."""
    lines = []
    for gain in compared:
        tested = {} if gain.test is None else asdict(gain.test)
        about = {"dataset": gain.dataset, "metric": gain.metric, "against": gain.against, "relative": gain.relative}
        seeds = " ".join(map(str, gain.seeds))
        lines.append(about | {"seeds": seeds} | tested | {"p_holm": gain.p})
    names = ["dataset", "metric", "against", "relative", "seeds", "users", "difference", "t", "p", "p_holm"]
    return pd.DataFrame(lines, columns=names)


def _gain(comparison: Comparison, dataset: str, metric: str) -> Gain | None:
    ours = comparison.cell(dataset, FULL).mean.get(metric)
    theirs = {m: comparison.cell(dataset, m).mean.get(metric) for m in comparison.methods if m != FULL}
    known = {method: mean for method, mean in theirs.items() if mean is not None}
    if ours is None or not known:
        return None
    best = max(known, key=lambda method: known[method])
    return Gain(
        dataset=dataset, metric=metric, against=best, relative=ours / known[best] - 1 if known[best] > 0 else None
    )


def _tested(gain: Gain, rows: pd.DataFrame, ranks: Ranks) -> Gain:
    ours, theirs = (_keys(rows, gain.dataset, method, ranks) for method in (FULL, gain.against))
    seeds = tuple(sorted(ours.keys() & theirs.keys()))
    if not seeds:
        return gain
    users = {len(ranks[keys[seed]]) for seed in seeds for keys in (ours, theirs)}
    if len(users) > 1:
        raise InputError(
            f"runs of {FULL} and {gain.against} on {gain.dataset} rank {' and '.join(map(str, sorted(users)))} users",
            "export the rows and ranks again, or run the study again",
        )
    values: list[np.ndarray] = [
        mean_over_seeds([ranks[keys[seed]] for seed in seeds], gain.metric) for keys in (ours, theirs)
    ]
    if users == {1}:
        return gain
    return replace(gain, seeds=seeds, test=paired_t_test(*values))


def _keys(rows: pd.DataFrame, dataset: str, method: str, ranks: Ranks) -> dict[int, str]:
    """Seed -> run key, of the runs that are done and whose ranks are at hand."""
    done = rows[(rows["dataset"] == dataset) & (rows["method"] == method) & (rows["status"] == "done")]
    return {int(seed): key for seed, key in zip(done["seed"], done["run_key"], strict=True) if key in ranks}


def _entry(gain: Gain | None) -> Entry:
    if gain is None or gain.relative is None:
        return Entry(mean=None)
    return Entry(mean=100 * gain.relative, form=PERCENT, star=gain.significant)


def _left_out(rows: pd.DataFrame, compared: list[Gain]) -> Iterator[str]:
    """Over which baselines an improvement is not."""
    comparison = compare(rows, TABLE_2.methods)
    for dataset in dict.fromkeys(gain.dataset for gain in compared):
        names = [METHOD_LABELS[m].plain for m in TABLE_2.methods if not comparison.cell(dataset, m).mean]
        if names:
            where, without = dataset_label(dataset), ", ".join(names)
            yield f"Improv. on {where} is over the baselines that have a result, without {without}."


def _remarks(compared: list[Gain]) -> Iterator[str]:
    """What the mark means, and what could not be tested."""
    tested = [gain for gain in compared if gain.test is not None]
    if tested:
        yield (
            f"*: p < {LEVEL:g} in a two-sided paired t-test over the users, each with the mean over the seeds that "
            f"both methods have; Holm-corrected over the table ({len(tested)} cells)."
        )
    left = {dataset_label(gain.dataset): None for gain in compared if gain.test is None}
    if left:
        yield f"Significance is not marked for {', '.join(left)}: the ranks of the users are not at hand."
