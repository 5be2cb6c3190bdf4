"""Tables 3 and 4 with tests: BBQRec against each of its variants on the same users."""

from collections.abc import Sequence
from dataclasses import replace

import pandas as pd

from analysis.cells import compare
from analysis.contrasts import Contrast, Side, contrasts, corrected, remarks
from analysis.labels import FULL, METRIC_LABELS, dataset_label
from analysis.ranks import Ranks
from analysis.tables import Table, TableSpec, table


def losses(rows: pd.DataFrame, ranks: Ranks, spec: TableSpec) -> list[Contrast]:
    """BBQRec against every other method of the table, corrected over the table. A variant that is the full model's own
    run on a data set is left out there."""
    comparison = compare(rows, spec.methods)
    pairs = [
        (dataset, Side(FULL), Side(method))
        for dataset in comparison.datasets
        for method in spec.methods
        if method != FULL and not comparison.cell(dataset, method).shared
    ]
    return corrected(contrasts(rows, ranks, pairs))


def ablation_table(rows: pd.DataFrame, spec: TableSpec, found: Sequence[Contrast]) -> Table:
    """The table with a star at every variant whose difference to BBQRec is significant, whatever its sign.

    `found` are the `losses` of the same rows.
    """
    made = table(rows, spec)
    starred = {
        (dataset_label(c.dataset), METRIC_LABELS[c.metric], spec.methods.index(c.theirs.method))
        for c in found
        if c.significant
    }
    groups = []
    for group in made.groups:
        lines = []
        for line in group:
            stars = [(group[0].dataset, line.metric, place) in starred for place in range(len(line.entries))]
            entries = [replace(entry, star=star) for entry, star in zip(line.entries, stars, strict=True)]
            lines.append(replace(line, entries=tuple(entries)))
        groups.append(tuple(lines))
    return replace(made, groups=tuple(groups), remarks=(*made.remarks, *remarks(found, "differs from BBQRec with ")))
