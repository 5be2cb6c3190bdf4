"""What cannot be true of a table of scores, whoever printed it: ours (rows.csv) or a paper's.

A paper's table has the columns table, dataset, metric, method, value: scores R@5, R@10, N@5, N@10 in [0, 1],
improvements in percent under the method "Improv. (%)", and statistics of the data as paper_results.csv has them.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import log2
from pathlib import Path

import pandas as pd

from analysis.labels import FULL, METHOD_LABELS, METRIC_LABELS
from analysis.rows import METRICS, SPLITS, load_rows
from bbqrec.errors import InputError

IMPROVEMENT = "Improv. (%)"
ROUNDING = 1e-4
"""Of a difference of two scores printed with four decimals."""
EXACT = 1e-9
"""Of scores that are not rounded."""
PERCENT = 0.3
"""Points of an improvement that scores rounded to four decimals may lie away from the printed one."""
IMPOSSIBLE = (
    "impossible with one target per user: N@10 - N@5 must lie between (R@10 - R@5)/log2(11) and (R@10 - R@5)/log2(7)"
)
PAPER_COLUMNS = ("table", "dataset", "metric", "method", "value")


@dataclass(frozen=True)
class Finding:
    """Where, and what is wrong with it."""

    where: str
    what: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}"


def lint(path: str | Path) -> list[Finding]:
    """Of a paper's table, or of exported rows. Raises InputError for a file that is neither."""
    try:
        frame = pd.read_csv(path, dtype=str, keep_default_na=False)
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read {path} ({' '.join(str(error).split())})", "give a table as CSV") from error
    if set(PAPER_COLUMNS) <= set(frame.columns):
        values = pd.to_numeric(frame["value"], errors="coerce")
        if values.isna().any():
            bad = frame[values.isna()].iloc[0]
            where = f"{bad['table']} {bad['dataset']} {bad['metric']} {bad['method']}"
            raise InputError(f"{path}: value of {where} is {bad['value']!r}", "give a number")
        return list(_of_paper(frame.assign(value=values)))
    if {"study", "run_key", "method"} <= set(frame.columns):
        return [finding for name in dict.fromkeys(frame["study"]) for finding in _of_rows(load_rows(path, name))]
    raise InputError(f"{path} has neither the columns of a paper's table nor of rows.csv", ", ".join(PAPER_COLUMNS))


def impossible_step(r5: float, r10: float, n5: float, n10: float, slack: float) -> bool:
    """Whether NDCG grows otherwise from 5 to 10 than the targets on places 6 to 10 can make it."""
    least, most = ((r10 - r5 + sign * slack) / log2(k) for sign, k in ((-1, 11), (1, 7)))
    return not least - slack <= n10 - n5 <= most + slack


def impossible_scores(found: Mapping[str, float], slack: float) -> Iterator[str]:
    """What cannot be of the four scores of one method (by R@5, R@10, N@5, N@10) with one target per user."""
    for metric, value in found.items():
        if not 0 <= value <= 1:
            yield f"{metric} is {value:g}, not in [0, 1]"
    for k, places in (("5", 6), ("10", 11)):
        recall, ndcg = found.get(f"R@{k}"), found.get(f"N@{k}")
        if recall is None or ndcg is None:
            continue
        if ndcg > recall + slack:
            yield f"N@{k} {ndcg:.4f} is above R@{k} {recall:.4f}"
        if ndcg < (recall - slack) / log2(places) - slack:
            yield f"N@{k} {ndcg:.4f} is below R@{k}/log2({places}) = {recall / log2(places):.4f}"
    for name in ("R", "N"):
        at5, at10 = found.get(f"{name}@5"), found.get(f"{name}@10")
        if at5 is not None and at10 is not None and at5 > at10 + slack:
            yield f"{name}@5 {at5:.4f} is above {name}@10 {at10:.4f}"
    if len(found) == len(METRIC_LABELS) and impossible_step(*(found[m] for m in METRIC_LABELS.values()), slack):
        yield IMPOSSIBLE


def _of_paper(frame: pd.DataFrame) -> Iterator[Finding]:
    scored = frame[frame["metric"].isin(METRIC_LABELS.values()) & (frame["method"] != IMPROVEMENT)]
    for (table, dataset, method), part in scored.groupby(["table", "dataset", "method"], sort=False):
        found = dict(zip(part["metric"], part["value"], strict=True))
        ordered = {metric: found[metric] for metric in METRIC_LABELS.values() if metric in found}
        for what in impossible_scores(ordered, ROUNDING):
            yield Finding(f"{table} {dataset} {method}", what)
    yield from _disagreements(scored)
    yield from _improvements(frame, scored)
    yield from _statistics(frame)
    for row in frame[frame["metric"].str.match(r"L=\d+$") & (frame["value"] == 1)].itertuples():
        yield Finding(
            f"{row.table} {row.dataset} {row.metric} {row.method}",
            "one item cannot share an ID with none: this counts items less distinct IDs",
        )


def _disagreements(scored: pd.DataFrame) -> Iterator[Finding]:
    """One cell in several tables, or twice in one, with other numbers."""
    for (dataset, metric, method), part in scored.groupby(["dataset", "metric", "method"], sort=False):
        if part["value"].nunique() > 1:
            said = ", ".join(f"{v:.4f} in {t}" for t, v in zip(part["table"], part["value"], strict=True))
            yield Finding(f"{dataset} {metric} {method}", f"has {said}")


def _improvements(frame: pd.DataFrame, scored: pd.DataFrame) -> Iterator[Finding]:
    """Printed improvements of the full model that are not over the best of the other methods of their table."""
    full = METHOD_LABELS[FULL].plain
    for row in frame[frame["method"] == IMPROVEMENT].itertuples():
        cell = scored[
            (scored["table"] == row.table) & (scored["dataset"] == row.dataset) & (scored["metric"] == row.metric)
        ]
        values = dict(zip(cell["method"], cell["value"], strict=True))
        others = {method: value for method, value in values.items() if method != full and value > 0}
        if full not in values or not others:
            continue
        over = {method: 100 * (values[full] / value - 1) for method, value in others.items()}
        best = max(others, key=lambda method: others[method])
        if abs(over[best] - row.value) > PERCENT:
            meant = min(over, key=lambda method: abs(over[method] - row.value))
            fits = f", it is over {meant}" if abs(over[meant] - row.value) <= PERCENT else ""
            what = f"prints {row.value:+.2f} %, over the best baseline ({best}) it is {over[best]:+.2f} %{fits}"
            yield Finding(f"{row.table} {row.dataset} {row.metric} {IMPROVEMENT}", what)


def _statistics(frame: pd.DataFrame) -> Iterator[Finding]:
    """An average length that interactions and users do not give."""
    for (table, dataset), part in frame.groupby(["table", "dataset"], sort=False):
        found = dict(zip(part["metric"], part["value"], strict=True))
        if not {"Users", "Interactions", "Avg. length"} <= found.keys():
            continue
        length = found["Interactions"] / found["Users"]
        if abs(length - found["Avg. length"]) > 0.0051:
            counts = f"{found['Interactions']:,.0f} interactions of {found['Users']:,.0f} users"
            yield Finding(f"{table} {dataset}", f"prints length {found['Avg. length']:.2f}, {counts} give {length:.2f}")


def _of_rows(rows: pd.DataFrame) -> Iterator[Finding]:
    """Of our own runs nothing is rounded; and two cells of one run must say the same."""
    done = rows[(rows["status"] == "done") & (rows["stage"] == "recommender")]
    for row in done.to_dict("records"):
        where = " ".join(filter(None, (row["dataset"], row["method"], f"seed {row['seed']}", row["setting"])))
        for split in SPLITS:
            found = {METRIC_LABELS[metric]: float(row[f"{split}/{metric}"]) for metric in METRICS}
            for what in impossible_scores(found, EXACT):
                yield Finding(f"{where} ({split})", what)
    scores = [f"{split}/{metric}" for split in SPLITS for metric in METRICS]
    for key, part in done.groupby("run_key", sort=False):
        if len(part[scores].drop_duplicates()) > 1:
            yield Finding(f"run {key}", f"has other scores as {' and as '.join(dict.fromkeys(part['method']))}")
