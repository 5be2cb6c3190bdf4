"""The hyperparameters that tuning tried and chose, of every method: the table of a paper's appendix.

It is made of the files that sweeps/tuning.py writes: FOLDER/<data set>/<method>.json.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from analysis.baselines import TABLE_2
from analysis.labels import METHOD_LABELS, dataset_label, in_paper_order
from analysis.markup import escape, latex_document, markdown_document
from analysis.tables import ABSENT
from bbqrec.errors import InputError

SCHEDULES = ".pbt.json"
"""The ending of files beside the tuned configs: of population-based training, which has no trials."""
TITLE = "Hyperparameters by validation NDCG@10"
HOW = (
    "`default` and `best` are validation NDCG@10: of the first trial, which has the default config, and of the chosen "
    "one, each at its best epoch. Of equal trials the first is chosen. The other columns are the chosen values, with "
    "the default's in brackets where it is another."
)


@dataclass(frozen=True, kw_only=True)
class Tuned:
    """One file. `default` and `chosen` are values by dotted field, scores validation NDCG@10 (None: diverged).

    `budget` and `space` say in words how much and what was tried; `points` is the number of trials given by hand.
    """

    dataset: str
    method: str
    budget: str
    epochs: int
    trials: int
    default: dict[str, Any]
    chosen: dict[str, Any]
    default_score: float | None
    score: float
    space: dict[str, str]
    points: int


def load_tuned(folder: str | Path) -> list[Tuned]:
    """Every tuned config of a folder, or of one data set's folder in it; in the order of the paper's tables.

    Raises InputError for a folder without any and for a file of another form.
    """
    folder = Path(folder)
    paths = sorted(path for path in folder.rglob("*.json") if not path.name.endswith(SCHEDULES))
    if not paths:
        raise InputError(f"{folder} has no tuned configs", "tune first: python sweeps/tuning.py")
    found = [_load(path) for path in paths]
    datasets, methods = in_paper_order([tuned.dataset for tuned in found]), list(TABLE_2.methods)
    methods += sorted({tuned.method for tuned in found} - set(methods))
    return sorted(found, key=lambda tuned: (datasets.index(tuned.dataset), methods.index(tuned.method)))


def tuning_markdown(found: Sequence[Tuned]) -> str:
    """A row per data set and method, and below it what was tried."""
    header, body = _table(found)
    return markdown_document(f"{TITLE}.", header, body, [], [HOW, *_remarks(found)])


def tuning_latex(found: Sequence[Tuned]) -> str:
    """The same for LaTeX, as wide as the page."""
    header, body = _table(found)
    heads = [escape(head) for head in header]
    rows = [[escape(text) for text in row] for row in body]
    groups = []
    for dataset, part in groupby(rows, key=lambda row: row[0]):
        groups.append([("" if number else dataset, row[1], row[2:], "") for number, row in enumerate(part)])
    return latex_document(
        size="small",
        fitted=True,
        name="tuning",
        caption=f"{TITLE}.",
        heads=heads[:2],
        labels=heads[2:],
        spans=(),
        groups=groups,
        notes=(),
        remarks=[escape(text.replace("`", "")) for text in (HOW, *_remarks(found))],
    )


def _table(found: Sequence[Tuned]) -> tuple[list[str], list[list[str]]]:
    """Header and rows."""
    fields = list(dict.fromkeys(path for tuned in found for path in tuned.space))
    header = ["Dataset", "Method", "trials", "epochs", "default", "best", *map(_named, fields)]
    body = []
    for tuned in found:
        scores = [ABSENT if score is None else f"{score:.4f}" for score in (tuned.default_score, tuned.score)]
        figures = [str(tuned.trials), str(tuned.epochs), *scores]
        body.append(
            [dataset_label(tuned.dataset), _label(tuned.method), *figures, *(_value(tuned, path) for path in fields)]
        )
    return header, body


def _value(tuned: Tuned, path: str) -> str:
    """The chosen value; the default in brackets if it is another."""
    if path not in tuned.space:
        return ABSENT
    chosen, default = f"{tuned.chosen[path]:g}", f"{tuned.default[path]:g}"
    return chosen if chosen == default else f"{chosen} ({default})"


def _remarks(found: Sequence[Tuned]) -> list[str]:
    """What was tried by which methods, whether all had the same budget, and who had seed points."""
    remarks = []
    for path in dict.fromkeys(path for tuned in found for path in tuned.space):
        users: dict[str, list[str]] = {}
        for tuned in found:
            if path in tuned.space:
                users.setdefault(tuned.space[path], []).append(_label(tuned.method))
        parts = [f"{domain} ({', '.join(dict.fromkeys(users[domain]))})" for domain in users]
        remarks.append(f"{_named(path)}: {'; '.join(parts) if len(parts) > 1 else next(iter(users))}.")
    budgets: dict[str, list[str]] = {}
    for tuned in found:
        budgets.setdefault(tuned.budget, []).append(_name(tuned))
    if len(budgets) == 1:
        remarks.append(f"Budget of every method: {next(iter(budgets))}.")
    else:
        told = [f"{budget} ({', '.join(names)})" for budget, names in budgets.items()]
        remarks.append(f"The budgets differ: {'; '.join(told)}.")
    if points := [f"{tuned.points} of {_name(tuned)}" for tuned in found if tuned.points]:
        remarks.append(f"Trials given by hand: {', '.join(points)}.")
    return remarks


def _name(tuned: Tuned) -> str:
    return f"{_label(tuned.method)} on {dataset_label(tuned.dataset)}"


def _label(method: str) -> str:
    return METHOD_LABELS[method].plain if method in METHOD_LABELS else method


def _named(path: str) -> str:
    """recommender.learning_rate -> learning rate; a quantizer's field says so, d_model stays."""
    stage, _, name = path.partition(".")
    words = name if name.startswith("d_") else name.replace("_", " ")
    return words if stage == "recommender" else f"{stage} {words}"


def _load(path: Path) -> Tuned:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read {path} ({' '.join(str(error).split())})", "tune again") from error
    try:
        budget = found["budget"]
        rules = {"none": "none stopped", "median": "stopped by the median rule"}
        stops = rules.get(budget["stop"]) or f"stopped by ASHA (the best 1 / {budget['factor']} go on)"
        return Tuned(
            dataset=found["dataset"],
            method=found["method"],
            budget=f"{budget['trials']} trials, {stops}",
            epochs=budget["epochs"],
            trials=len(found["trials"]),
            default={path: found["trials"][0]["overrides"][path] for path in found["space"]},
            chosen={path: found["overrides"][path] for path in found["space"]},
            default_score=found["default_score"],
            score=found["score"],
            space={path: _domain(domain) for path, domain in found["space"].items()},
            points=len(found["seed_points"]),
        )
    except (KeyError, TypeError, IndexError, AttributeError) as error:
        raise InputError(f"{path} is no tuned config ({error!r})", "remove it or tune again") from error


def _domain(domain: dict[str, Any]) -> str:
    if "values" in domain:
        return ", ".join(f"{value:g}" for value in domain["values"])
    return f"{domain['low']:g} to {domain['high']:g}"
