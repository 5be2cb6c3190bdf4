"""A whole store -> all that the page says, in plain JSON types. Statistics come from the modules of the tables."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

from analysis.costs import duration, study_cost
from analysis.inference import load_measured, table6
from analysis.labels import dataset_label, in_paper_order
from analysis.page.codebooks import codebooks_table
from analysis.page.live import Live, live_runs
from analysis.page.runs import run_records
from analysis.page.state import public, published_part, state_tables
from analysis.page.studies import study_section
from analysis.page.tables import Json, cell, claims_table, flat, number, paper_table, runs_table, seconds
from analysis.rows import STATUSES
from analysis.whole import StudyPart, Whole
from bbqrec.errors import InputError

TITLE = "BBQRec: results"


def page_model(
    whole: Whole, claims: Sequence[Any] = (), refresh: int | None = None, built: str | None = None
) -> dict[str, Any]:
    """The page's sections in order, and the records of the runs. `refresh` (seconds) and `built` are a live page's.

    What cannot be made of a study is left out and named in `troubles`.
    """
    studies = {name: published_part(part) for name, part in whole.studies.items()}
    live = {key: found for part in studies.values() for key, found in live_runs(part).items()}
    troubles = [public(trouble, whole.source) for trouble in whole.troubles]
    made = [study_section(part, live, troubles) for part in studies.values()]
    sections = [*_state(studies, live), *_claims(claims), *made, *_cells(studies), *_codebooks(studies)]
    sections += _inference(whole, troubles)
    return {
        "title": TITLE,
        "refresh": refresh,
        "built": built,
        "cards": _cards(studies, claims),
        "states": _states(studies),
        "troubles": troubles,
        "overview": _overview(studies) if studies else None,
        "sections": sections,
        "runs": run_records(studies, live),
    }


def _cards(studies: Mapping[str, StudyPart], claims: Sequence[Any]) -> list[Json]:
    """What the page is about in a few numbers: value, what it counts, and what else is to be said."""
    if not studies:
        return []
    rows = pd.concat([part.rows for part in studies.values()], ignore_index=True)
    cost = study_cost(rows)
    done = int((rows["status"] == "done").sum())
    datasets = [dataset_label(name) for name in in_paper_order(list(rows["dataset"]))]
    about = f"{_counted(rows['method'].nunique(), 'method')}, {_counted(rows['seed'].nunique(), 'seed')}"
    cards = [
        _card(f"{done:,} of {len(rows):,}", "cells done", about),
        _card(len(datasets), "data set" if len(datasets) == 1 else "data sets", ", ".join(datasets)),
        _card(f"{cost.runs:,}", "runs", f"{cost.asked:,} without sharing"),
    ]
    if cost.unknown < cost.runs:
        cards.append(_card(duration(cost.seconds), "of computing", f"{duration(cost.alone_seconds)} without sharing"))
    verdicts: dict[str, int] = {}
    for claim in claims:
        verdicts[claim.verdict] = verdicts.get(claim.verdict, 0) + 1
    if claims:
        others = ", ".join(f"{count} {verdict}" for verdict, count in verdicts.items() if verdict != "holds")
        cards.append(_card(f"{verdicts.get('holds', 0)} of {len(claims)}", "claims hold", others))
    return cards


def _card(value: Any, name: str, note: str) -> Json:
    return {"value": str(value), "name": name, "note": note}


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


def _states(studies: Mapping[str, StudyPart]) -> list[Json]:
    """How many cells are in each state, those that occur."""
    counts = dict.fromkeys(STATUSES, 0)
    for part in studies.values():
        for status, count in part.rows["status"].value_counts().items():
            counts[status] += int(count)
    return [{"state": state, "count": count} for state, count in counts.items() if count]


def _overview(studies: Mapping[str, StudyPart]) -> Json:
    lines = []
    for part in studies.values():
        rows, cost = part.rows, study_cost(part.rows)
        datasets = ", ".join(dataset_label(name) for name in in_paper_order(list(rows["dataset"])))
        counts = rows["status"].value_counts()
        lines.append(
            [
                cell(part.name, link=f"study-{part.name}"),
                cell(", ".join(str(p) for p in rows["profile"].dropna().unique())),
                cell(datasets),
                number(rows["method"].nunique()),
                number(rows["seed"].nunique()),
                *(number(counts.get(state, 0)) for state in STATUSES),
                number(cost.runs),
                seconds(cost.seconds if cost.unknown < cost.runs else None),
            ]
        )
    heads = ["Study", "Profile", "Data sets", "Methods#", "Seeds#", "Done#", "Running#", "Pending#", "Failed#"]
    about = "Cells by state. Runs: done quantizers and recommenders; one that several cells share counts once."
    return flat("studies", "Studies", about, [*heads, "Runs#", "Cost#"], lines)


def _section(name: str, title: str, *parts: Json | None, about: Sequence[str] = ()) -> Iterator[Json]:
    """A section, unless there is nothing in it."""
    found = [part for part in parts if part is not None]
    if found:
        yield {"name": name, "title": title, "about": list(about), "parts": found}


def _state(studies: Mapping[str, StudyPart], live: Mapping[str, Live]) -> Iterator[Json]:
    yield from _section("state", "Without a number", *state_tables(studies, live))


def _claims(claims: Sequence[Any]) -> Iterator[Json]:
    yield from _section("claims-of-the-paper", "Claims of the paper", claims_table(claims) if claims else None)


def _cells(studies: Mapping[str, StudyPart]) -> Iterator[Json]:
    if any(len(part.rows) for part in studies.values()):
        yield from _section("cells", "Every cell", runs_table({part.name: part.rows for part in studies.values()}))


def _codebooks(studies: Mapping[str, StudyPart]) -> Iterator[Json]:
    yield from _section("codes", "Codebooks and collisions", codebooks_table(studies))


def _inference(whole: Whole, troubles: list[str]) -> Iterator[Json]:
    if whole.inference is None:
        return
    try:
        made = paper_table(table6(load_measured(whole.inference)))
    except InputError as error:
        troubles.append(f"Table 6 is left out: {public(error.what)}")
        return
    yield from _section("inference", "Inference", made)
