"""The numbers that the paper prints, and ours beside them.

paper_results.csv holds Tables 1 to 6 as printed in "BBQRec: Behavior-Bind Quantization for Multi-Modal Sequential
Recommendation" (arXiv 2504.06636, CC BY 4.0). Figures without numbers are not in it.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path

import pandas as pd

from analysis.cells import compare
from analysis.labels import FULL, METHOD_LABELS, METRIC_LABELS, dataset_label
from analysis.lint import IMPOSSIBLE, IMPROVEMENT, ROUNDING, impossible_step
from analysis.markup import markdown_document
from analysis.rows import METRICS
from analysis.tables import ABSENT, DECIMALS, Entry, TableSpec, footnotes, marked

SOURCE = "arXiv 2504.06636"
FILE = Path(__file__).with_name("paper_results.csv")

PRINTED_GAIN = "For N@5 on Clothing the paper prints +10.56 %, which is over MISSRec; its best baseline is LETTER."

Key = tuple[str, str, str]
"""Data set in small letters, row and column as the paper calls them."""


@lru_cache
def paper_results(table: str) -> Mapping[Key, float]:
    """The numbers of "table1" to "table6", but for the improvements printed in Table 2."""
    frame = pd.read_csv(FILE, dtype={"value": float}, keep_default_na=False)
    part = frame[(frame["table"] == table) & (frame["method"] != IMPROVEMENT)]
    names = zip(part["dataset"].str.lower(), part["metric"], part["method"], strict=True)
    return dict(zip(names, part["value"], strict=True))


def known(table: str, datasets: tuple[str, ...]) -> list[str]:
    """Those of the data sets, in their order, for which the paper's table has numbers."""
    printed = {dataset for dataset, _, _ in paper_results(table)}
    return [dataset for dataset in datasets if dataset.lower() in printed]


def paper_entry(table: str, dataset: str, metric: str, method: str, form: str) -> Entry:
    """What a table shows of the paper's number, which it may not have."""
    return Entry(mean=paper_results(table).get((dataset.lower(), metric, method)), form=form)


def beside(rows: pd.DataFrame, spec: TableSpec, improvement: bool = False) -> str:
    """Markdown of a table of scores as "paper / ours" over the study's data sets that the paper has, by their names.

    With `improvement` the last column is that of the full model over the best of the other columns, of either side.
    Scores of the paper that contradict each other are marked.
    """
    comparison = compare(rows, spec.methods)
    datasets = known(spec.name, comparison.datasets)
    printed, wrong = paper_results(spec.name), contradictions(spec.name)
    notes = footnotes(text for (dataset, _, _), text in wrong.items() if dataset in {d.lower() for d in datasets})
    full, others = METHOD_LABELS[FULL].plain, [METHOD_LABELS[m].plain for m in spec.methods if m != FULL]
    body = []
    for dataset in datasets:
        for index, metric in enumerate(METRICS):
            line = [dataset_label(dataset) if index == 0 else "", METRIC_LABELS[metric]]
            theirs: dict[str, float] = {}
            ours: dict[str, float] = {}
            for method in spec.methods:
                label, cell = METHOD_LABELS[method].plain, comparison.cell(dataset, method)
                key = (dataset.lower(), METRIC_LABELS[metric], label)
                theirs |= {label: printed[key]} if key in printed else {}
                ours |= {label: cell.mean[metric]} if cell.mean else {}
                mark = f" [{notes[wrong[key]]}]" if key in wrong else ""
                state = ABSENT if cell.state == "absent" else cell.state
                line.append(f"{_score(theirs.get(label), ABSENT)}{mark} / {_score(ours.get(label), state)}")
            if improvement:
                line.append(" / ".join(_improvement(side, full, others) for side in (theirs, ours)))
            body.append(line)
    title = f"{spec.name.replace('table', 'Table ')} of the paper ({SOURCE}) / ours."
    if not datasets:
        return f"{title} The study has none of the paper's data sets.\n"
    strange = [dataset_label(dataset) for dataset in comparison.datasets if dataset not in datasets]
    remarks = [f"Not in the paper: {', '.join(strange)}."] if strange else []
    remarks += [PRINTED_GAIN] if improvement and "clothing" in {dataset.lower() for dataset in datasets} else []
    header = ["Dataset", "Metrics", *(METHOD_LABELS[method].plain for method in spec.methods)]
    header += ["Improv."] if improvement else []
    return markdown_document(f"{title} Ours: {comparison.conditions}", header, body, marked(notes), remarks)


def _score(value: float | None, word: str) -> str:
    return word if value is None else f"{value:.{DECIMALS}f}"


def _improvement(scores: Mapping[str, float], full: str, others: Sequence[str]) -> str:
    """Of the full model over the best of the others, as far as they are known."""
    best = max((scores[name] for name in others if name in scores), default=0.0)
    return f"{100 * (scores[full] / best - 1):+.2f} %" if full in scores and best > 0 else ABSENT


def contradictions(table: str) -> dict[Key, str]:
    """What cannot be true of the paper's scores: by one another, or by another table of the same model."""
    printed = paper_results(table)
    found = {}
    for dataset, method in dict.fromkeys((dataset, method) for dataset, _, method in printed):
        r5, r10, n5, n10 = (printed[dataset, METRIC_LABELS[metric], method] for metric in METRICS)
        if impossible_step(r5, r10, n5, n10, ROUNDING):
            found[dataset, "N@10", method] = IMPOSSIBLE
    full = METHOD_LABELS[FULL].plain
    for (dataset, metric, method), value in printed.items():
        others = {t: paper_results(t)[dataset, metric, full] for t in ("table2", "table3", "table4")}
        if method == full and value != others["table2"]:
            text = ", ".join(f"{v:.{DECIMALS}f} in {t.replace('table', 'Table ')}" for t, v in others.items())
            found[dataset, metric, method] = f"the paper prints {text}"
    return found
