"""Table 2: BBQRec against the baselines, its improvement over the best of them, and whether users bear it out."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import pandas as pd

from analysis.cells import Comparison, compare
from analysis.contrasts import Contrast, Side, contrasts, corrected, remarks
from analysis.labels import FULL, METHOD_LABELS, METRIC_LABELS, Label, dataset_label
from analysis.ranks import Ranks
from analysis.rows import METRICS
from analysis.tables import SECOND, Entry, Table, TableSpec, table

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


def gains(rows: pd.DataFrame, ranks: Ranks) -> list[Contrast]:
    """BBQRec against the baseline with the highest mean, on every data set and by every metric on which both have a
    result; tested where `ranks` has both, corrected over the table."""
    comparison = compare(rows, TABLE_2.methods)
    best = {
        (dataset, metric): max(known, key=lambda method: known[method])
        for dataset in comparison.datasets
        for metric in METRICS
        if (known := _means(comparison, dataset, metric))
    }
    pairs = dict.fromkeys((dataset, Side(FULL), Side(method)) for (dataset, _), method in best.items())
    found = [c for c in contrasts(rows, ranks, pairs) if c.theirs.method == best[c.dataset, c.metric]]
    order = {metric: place for place, metric in enumerate(METRICS)}
    places = {dataset: place for place, dataset in enumerate(comparison.datasets)}
    return corrected(sorted(found, key=lambda c: (places[c.dataset], order[c.metric])))


def _means(comparison: Comparison, dataset: str, metric: str) -> dict[str, float]:
    """Of the baselines that have a result."""
    means = {m: comparison.cell(dataset, m).mean.get(metric) for m in comparison.methods if m != FULL}
    return {method: mean for method, mean in means.items() if mean is not None}


def table2(rows: pd.DataFrame, compared: Sequence[Contrast]) -> Table:
    """The table on the test split. Cells without a number are shown as such; improvements are over those with one.

    `compared` are the `gains` of the same rows.
    """
    made = table(rows, TABLE_2)
    comparison = compare(rows, TABLE_2.methods)
    found = {(dataset_label(gain.dataset), METRIC_LABELS[gain.metric]): gain for gain in compared}
    groups = []
    for group in made.groups:
        lines = [
            replace(x, entries=(*x.entries, _entry(found.get((group[0].dataset, x.metric)), comparison))) for x in group
        ]
        groups.append(tuple(lines))
    return replace(
        made,
        labels=(*made.labels, IMPROVEMENT),
        groups=tuple(groups),
        remarks=(*made.remarks, *_left_out(rows, compared), *remarks(compared)),
    )


def _entry(gain: Contrast | None, comparison: Comparison) -> Entry:
    if gain is None or gain.relative is None:
        return Entry(mean=None)
    runs = [key for side in (gain.ours, gain.theirs) for key in comparison.cell(gain.dataset, side.method).runs]
    return Entry(mean=100 * gain.relative, form=PERCENT, star=gain.significant, runs=tuple(runs))


def _left_out(rows: pd.DataFrame, compared: Sequence[Contrast]) -> Iterator[str]:
    """Over which baselines an improvement is not."""
    comparison = compare(rows, TABLE_2.methods)
    for dataset in dict.fromkeys(gain.dataset for gain in compared):
        names = [METHOD_LABELS[m].plain for m in TABLE_2.methods if not comparison.cell(dataset, m).mean]
        if names:
            where, without = dataset_label(dataset), ", ".join(names)
            yield f"Improv. on {where} is over the baselines that have a result, without {without}."
