"""Tables as the page has them, in plain JSON types: those of the paper, and flat ones that sort and filter.

A cell of a flat table is an object with `text` and, as far as it has them, `value` (what it sorts by), `runs` (keys of
the runs behind it), `state` (done, running, pending, failed or a verdict), `bar` (share of the longest, in [0, 1]) and
`interval` (low, middle, high and the scale's half width).
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from statistics import median
from typing import Any

import pandas as pd

from analysis.contrasts import Contrast
from analysis.costs import CELL, GROUP, SECONDS, cell_costs, duration
from analysis.labels import METHOD_LABELS, METRIC_LABELS, Label, dataset_label
from analysis.rows import COLLISIONS, METRICS
from analysis.tables import DECIMALS, Entry, Table

Json = dict[str, Any]
CELL_HEADS = ("Method", "Data set", "Study", "Seed#", "State")
SCALE = 4.0
"""Of the drawn intervals, in their median: beyond it one is cut, so that a collapse does not hide all others."""
RUNNING_WORDS = ("running", "pending", "failed")


def paper_table(table: Table) -> Json:
    """A table of the paper: its groups have a heading of their own, so that a phone needs one fixed column only."""
    return {
        "kind": "table",
        "name": table.name,
        "caption": table.caption("underlined"),
        "head": table.heads[1],
        "spans": [list(span) for span in table.spans],
        "labels": [label.plain for label in table.labels],
        "groups": [
            {
                "dataset": group[0].dataset,
                "lines": [{"name": x.metric, "entries": list(map(_entry, x.entries))} for x in group],
            }
            for group in table.groups
            if group
        ],
        "notes": [list(note) for note in table.notes],
        "remarks": list(table.remarks),
    }


def _entry(entry: Entry) -> Json:
    shown: Json = {
        "text": entry.word if entry.mean is None else entry.form.format(entry.mean).replace("-", "−"),
        "runs": ",".join(dict.fromkeys(entry.runs)),
        "marks": list(entry.marks),
    }
    if entry.mean is None and entry.word in RUNNING_WORDS:
        shown["state"] = entry.word
    if entry.sd is not None:
        shown["sd"] = entry.form.format(entry.sd)
    return shown | {name: True for name in ("best", "second", "star") if getattr(entry, name)}


def flat(name: str, title: str, about: str, columns: Sequence[str], rows: Iterable[Sequence[Json]]) -> Json:
    """A table that sorts and filters. A column's name that ends in "#" is one of numbers."""
    heads = [{"name": c.removesuffix("#"), "number": c.endswith("#")} for c in columns]
    return {"kind": "flat", "name": name, "title": title, "about": about, "columns": heads, "rows": [*map(list, rows)]}


def cell(text: Any, value: float | None = None, **more: Any) -> Json:
    """A cell; what is None or no number is left out."""
    known = {name: item for name, item in more.items() if item not in (None, "")}
    if value is not None and math.isfinite(value):
        known["value"] = value
    return {"text": "" if text is None else str(text), **known}


def number(value: Any, form: str = "{:,.0f}", **more: Any) -> Json:
    """A cell of a number, empty where there is none."""
    if value is None or pd.isna(value) or not math.isfinite(value):
        return cell("", **more)
    return cell(form.format(value).replace("-", "−"), float(value), **more)


def seconds(value: Any, **more: Any) -> Json:
    """A cell of a duration."""
    known = value is not None and pd.notna(value)
    return cell(duration(float(value)), float(value), **more) if known else cell("", **more)


def method_name(method: str, label: str, setting: str | None = None) -> str:
    """What a reader calls a method and its setting."""
    name = METHOD_LABELS.get(method, Label(label, label)).plain
    return f"{name} {setting}" if setting else name


def text(value: Any) -> str | None:
    """A value of a row's column of text; None for what a table of numbers puts in its place."""
    return None if value is None or (isinstance(value, float) and math.isnan(value)) else str(value)


def runs_table(studies: Mapping[str, pd.DataFrame]) -> Json:
    """Every cell of every study, a line each."""
    lines = []
    for study, rows in studies.items():
        costed = cell_costs(rows)
        costs = dict(zip(costed[list(CELL)].itertuples(index=False, name=None), costed["alone_seconds"], strict=True))
        for row in rows.to_dict("records"):
            key, setting = row["run_key"], text(row["setting"])
            alone = costs.get(tuple(row[field] for field in CELL)) if row["status"] == "done" else None
            score = [number(row[f"test/{metric}"], f"{{:.{DECIMALS}f}}") for metric in METRICS]
            lines.append(
                [
                    cell(method_name(row["method"], row["label"], setting), runs=key),
                    cell(dataset_label(row["dataset"])),
                    cell(study),
                    cell(row["seed"], float(row["seed"])),
                    cell(row["status"], state=row["status"]),
                    *score,
                    number(row["valid/ndcg@10"], f"{{:.{DECIMALS}f}}"),
                    number(row.get(COLLISIONS)),
                    seconds(alone or None),
                    cell((text(row.get("provenance/commit")) or "")[:7]),
                    cell(key[:8]),
                ]
            )
    heads = [f"{METRIC_LABELS[metric]}#" for metric in METRICS]
    return flat(
        "all-cells",
        "Every cell",
        "Scores on the test split; validation N@10 is what checkpoints were selected by. Cost: seconds of work of all "
        "runs that a cell rests on. A line opens its provenance.",
        [*CELL_HEADS, *heads, "Valid. N@10#", "Collisions#", "Cost#", "Commit", "Run"],
        lines,
    )


def statistics_table(name: str, title: str, found: Sequence[Contrast], rows: pd.DataFrame) -> Json:
    """What stands behind the marks of a table. Intervals share a scale per table, which a few large ones leave."""
    done = rows[rows["status"] == "done"]
    keys: dict[tuple[str, str, str | None], list[str]] = {}
    for dataset, method, setting, key in done[["dataset", "method", "setting", "run_key"]].itertuples(index=False):
        keys.setdefault((dataset, method, text(setting)), []).append(key)
    ends = [abs(limit) for c in found for limit in c.interval or ()]
    scale = min(max(ends), SCALE * median(ends)) or max(ends) if ends else 0.0
    lines = []
    for c in found:
        low, high = c.interval or (None, None)
        difference = c.test.difference if c.test else c.means[0] - c.means[1]
        drawn = [low, difference, high, scale] if low is not None and scale > 0 else None
        runs = [k for side in (c.ours, c.theirs) for k in keys.get((c.dataset, side.method, side.setting), ())]
        verdict = "" if c.p is None else "significant" if c.significant else "not significant"
        lines.append(
            [
                cell(f"{_side(c.ours)} − {_side(c.theirs)}", runs=",".join(dict.fromkeys(runs))),
                cell(dataset_label(c.dataset)),
                cell(METRIC_LABELS[c.metric]),
                number(difference, "{:+.4f}"),
                cell("", difference, interval=drawn),
                cell("" if low is None else f"{low:+.4f} to {high:+.4f}".replace("-", "−"), low),
                _p(c.p),
                cell(verdict, state=verdict or None),
                number(None if c.relative is None else 100 * c.relative, "{:+.1f} %"),
                _p(c.test.p if c.test else None),
                _p(c.wilcoxon),
                number(c.effect, "{:+.3f}"),
                number(c.detectable, "{:.4f}"),
                number(c.test.users if c.test else None),
            ]
        )
    columns = ["Contrast", "Data set", "Metric", "Difference#", "95 % interval", "from / to#", "p (Holm)#"]
    columns += ["Verdict", "Relative#", "p#", "p (Wilcoxon)#", "d#", "Detectable#", "Users#"]
    about = (
        "Difference of the users' means over the seeds that both sides have; the interval is a bootstrap over users "
        "and seeds (an arrow: beyond the scale). p: two-sided paired t-test over the users; Holm: corrected over the "
        "table. d: Cohen's effect size. Detectable: the smallest difference that this test would find with a "
        "probability of 80 %."
    )
    return flat(name, title, about, columns, lines)


def _side(side: Any) -> str:
    return method_name(side.method, side.method, side.setting)


def _p(value: float | None) -> Json:
    if value is None or not math.isfinite(value):
        return cell("")
    return cell("< 0.001" if value < 0.001 else f"{value:.3f}", value)


def costs_table(name: str, rows: pd.DataFrame) -> Json:
    """A study's costs by data set, method and setting, all seeds together."""
    cells = cell_costs(rows).fillna({"setting": ""})
    sums = [(*group, part, _shown(part)) for group, part in cells.groupby(list(GROUP), sort=False)]
    longest = max((part["alone_seconds"].sum() for *_, part, _ in sums), default=0.0) or 1.0
    lines = [
        [
            cell(f"{label} {setting}".strip(), runs=",".join(runs)),
            cell(dataset_label(dataset)),
            number(len(part)),
            *(seconds(part[column].sum() if part[column].notna().any() else None) for column in SECONDS),
            seconds(part["alone_seconds"].sum(), bar=part["alone_seconds"].sum() / longest),
            seconds(part["shared_seconds"].sum(), bar=part["shared_seconds"].sum() / longest),
        ]
        for dataset, label, setting, part, runs in sums
    ]
    heads = ["Method", "Data set", "Cells#", "Teacher#", "Quantizer#", "Recommender#", "Alone#", "Shared#"]
    about = (
        "Work (training and judging). Alone: what the cells would have cost without sharing; shared: each run divided "
        "among the cells that rest on it, so that the column adds up to what the study cost."
    )
    return flat(name, "Cost by method", about, heads, lines)


def _shown(cells: pd.DataFrame) -> list[str]:
    """The runs whose numbers these cells show."""
    return list(dict.fromkeys(cells["recommender_key"].where(cells["recommender_key"].notna(), cells["quantizer_key"])))


def claims_table(claims: Sequence[Any]) -> Json:
    """Sentences of the paper and their verdicts: objects with section, sentence, verdict and details."""
    lines = [[cell(c.section), cell(c.sentence), cell(c.verdict, state=c.verdict), cell(c.details)] for c in claims]
    about = "What Sections 5.2 to 5.6 of the paper say, and whether it holds here."
    return flat("claims", "Claims", about, ["Section", "Sentence", "Verdict", "Details"], lines)
