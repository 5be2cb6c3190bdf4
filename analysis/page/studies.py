"""The section of a study: its tables, figures, tests, learning curves and costs, each as far as its rows go."""

from collections.abc import Callable, Iterator, Mapping
from functools import cache

from analysis.ablations import ablation_table, losses
from analysis.baselines import gains, table2
from analysis.cells import asked
from analysis.collisions import table5
from analysis.contrasts import Contrast
from analysis.costs import sentence
from analysis.overview import overview
from analysis.page.figures import figure3, figure4, learning_curves
from analysis.page.live import Live
from analysis.page.state import public, time_left
from analysis.page.tables import Json, costs_table, paper_table, statistics_table
from analysis.tables import TABLE_3, TABLE_4, Table
from analysis.whole import StudyPart
from bbqrec.errors import InputError

Part = Callable[[], Json | None]
TITLES = {
    "ablations": "Ablations",
    "baselines": "Comparison with the baselines",
    "collisions": "Collisions",
    "hyperparameters": "Hyperparameters",
}


def study_section(part: StudyPart, live: Mapping[str, Live], troubles: list[str]) -> Json:
    """What cannot be made is left out and named in `troubles`."""
    parts = []
    for what, make in (*OUTPUTS.get(part.name, _others)(part), *_every(part, live)):
        try:
            made = make()
        except InputError as error:
            troubles.append(f"study {part.name} lacks {what}: {public(error.what, part.source)}")
            continue
        parts += [made] if made is not None else []
    return {
        "name": f"study-{part.name}",
        "title": TITLES.get(part.name, part.name),
        "about": _about(part, live),
        "parts": parts,
    }


def _about(part: StudyPart, live: Mapping[str, Live]) -> list[str]:
    """Plan and cost in sentences."""
    said, plan = [" ".join(asked(part.rows))], part.about.get("plan")
    if isinstance(plan, Mapping) and all(isinstance(count, int) for count in plan.values()):
        names = {
            "cells": "cells",
            "quantizer_runs": "quantizers",
            "recommender_runs": "recommenders",
            "shared": "runs saved by sharing",
            "already_done": "done before",
        }
        counts = [f"{plan[name]} {words}" for name, words in names.items() if name in plan]
        said.append(f"Plan: {', '.join(counts)}.")
    said.append(f"{sentence(part.rows).capitalize()}.")
    if left := time_left(part, live):
        said.append(f"{left.capitalize()}.")
    if command := part.about.get("command"):
        said.append(f"Command: {public(str(command))}")
    return [text for text in said if text]


def _ablations(part: StudyPart) -> Iterator[tuple[str, Part]]:
    for spec, title in ((TABLE_3, "Tests behind Table 3"), (TABLE_4, "Tests behind Table 4")):
        yield from _tested(
            part,
            spec.name,
            title,
            lambda spec=spec: losses(part.rows, part.ranks, spec),
            lambda found, spec=spec: ablation_table(part.rows, spec, found),
        )
    yield "Figure 4", lambda: figure4(part.rows)


def _baselines(part: StudyPart) -> Iterator[tuple[str, Part]]:
    rows, ranks = part.rows, part.ranks
    title = "Tests behind Table 2"
    yield from _tested(part, "table2", title, lambda: gains(rows, ranks), lambda found: table2(rows, found))


def _tested(
    part: StudyPart,
    name: str,
    title: str,
    compared: Callable[[], list[Contrast]],
    made: Callable[[list[Contrast]], Table],
) -> Iterator[tuple[str, Part]]:
    """A table and what its marks are made of, which is computed once."""
    once = cache(compared)
    yield name.replace("table", "Table "), lambda: paper_table(made(once()))
    yield title, lambda: statistics_table(f"tests-{name}", title, once(), part.rows) if once() else None


def _collisions(part: StudyPart) -> Iterator[tuple[str, Part]]:
    yield "Table 5", lambda: paper_table(table5(part.rows))


def _hyperparameters(part: StudyPart) -> Iterator[tuple[str, Part]]:
    yield "Figure 3", lambda: figure3(part.rows)
    yield "overview", lambda: _overview(part)


def _others(part: StudyPart) -> Iterator[tuple[str, Part]]:
    if (part.rows["stage"] == "recommender").all():
        yield "overview", lambda: _overview(part)


OUTPUTS: dict[str, Callable[[StudyPart], Iterator[tuple[str, Part]]]] = {
    "ablations": _ablations,
    "baselines": _baselines,
    "collisions": _collisions,
    "hyperparameters": _hyperparameters,
}
"""What each study feeds, as in analysis.report; one that is not named here has an overview."""


def _every(part: StudyPart, live: Mapping[str, Live]) -> Iterator[tuple[str, Part]]:
    yield "learning curves", lambda: learning_curves(part.name, part.curves, part.rows, live)
    if (part.rows["status"] == "done").any():
        yield "costs", lambda: costs_table(f"costs-{part.name}", part.rows)


def _overview(part: StudyPart) -> Json:
    return paper_table(overview(part.rows)) | {"name": f"overview-{part.name}"}
