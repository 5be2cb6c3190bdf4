"""A study = methods x data sets x seeds x overrides, planned as a de-duplicated two-stage graph of runs.

A cell is one number of a table; a run is one stage computed once. Runs are named by their keys, so cells that need the
same run share it, and what the store holds already is not computed again.
"""

import itertools
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any, Literal

from rich.table import Table

from bbqrec.config import digest
from bbqrec.data import load_dataset, require_targets
from bbqrec.datasets.canonical import statistics
from bbqrec.errors import InputError, require_known
from bbqrec.methods import METHODS, has_field, run_config
from bbqrec.profiles import PROFILES
from bbqrec.run import RunConfig
from bbqrec.schema import Dataset
from bbqrec.store import Store
from sweeps.cell import Cell, described, note
from sweeps.scores import selected_score
from sweeps.tuned import tuned_for

Stage = Literal["quantizer", "recommender", "trial"]


@dataclass(frozen=True, kw_only=True)
class Run:
    """One stage to compute. `name` is for people; `needs` is the key of the run whose artefact it reads: a recommender
    its quantizer's, a taught quantizer its teacher's."""

    stage: Stage
    key: str
    name: str
    config: RunConfig
    folder: str
    method: str
    needs: str | None = None


@dataclass(frozen=True, kw_only=True)
class Plan:
    """All cells, each run once (quantizers first), and the keys of the runs that the store holds already."""

    study: "Study"
    cells: tuple[Cell, ...]
    runs: Mapping[str, Run]
    done: frozenset[str]
    scores: Mapping[str, float]
    """Validation NDCG@10 of the recommenders that are done."""
    folders: Mapping[str, str]
    """Fingerprint of each data set -> its folder."""
    statistics: Mapping[str, Mapping[str, float]]
    """Name of each data set -> its line of Table 1."""

    @property
    def key(self) -> str:
        """Name of the study file: another for other cells, another profile or other overrides; their order is free."""
        study = self.study
        cells = sorted([c.dataset, c.fingerprint, c.method, str(c.seed), c.run_key] for c in self.cells)
        overrides = {field: str(value) for field, value in study.overrides.items()}
        return f"{study.name}-{digest([cells, study.profile, overrides])[:8]}"

    def behind(self, key: str) -> list[str]:
        """The runs that a run needs, nearest first: a recommender's quantizer, and that one's teacher."""
        needs = self.runs[key].needs
        return [] if needs is None else [needs, *self.behind(needs)]

    @property
    def missing(self) -> tuple[Run, ...]:
        """What has to be computed: the cells' runs, and what they need as far as it is not there."""
        needed: set[str] = set()
        for cell in self.cells:
            chain = [cell.run_key, *self.behind(cell.run_key)]
            needed.update(itertools.takewhile(lambda key: key not in self.done, chain))
        return tuple(run for run in self.runs.values() if run.key in needed)

    @property
    def asked(self) -> Mapping[Stage, int]:
        """Runs that the cells would take if none were shared."""
        with_quantizer = sum(cell.quantizer_key is not None for cell in self.cells)
        taught = sum(METHODS[cell.method].teacher is not None for cell in self.cells)
        shown = len(self.cells) if self.study.stage == "recommender" else 0
        return {"quantizer": with_quantizer, "recommender": shown + taught}

    def count(self, stage: Stage, keys: Collection[str] | None = None) -> int:
        """Unique runs of a stage, among `keys` if given."""
        return sum(run.stage == stage and (keys is None or run.key in keys) for run in self.runs.values())

    def summary(self) -> dict[str, int]:
        """The numbers of the plan as the study file keeps them."""
        return {
            "cells": len(self.cells),
            "quantizer_runs": self.count("quantizer"),
            "recommender_runs": self.count("recommender"),
            "shared": sum(self.asked.values()) - len(self.runs),
            "already_done": len(self.done),
        }

    def scope(self) -> str:
        """The data sets, methods, seeds, profile, overrides and tuned configs of the cells, a line each."""
        study = self.study
        named = {
            "data sets": dict.fromkeys(cell.dataset for cell in self.cells),
            "methods": dict.fromkeys(study.methods),
            "seeds": [str(seed) for seed in range(study.seeds)],
            "profile": [study.profile],
            "set": [f"{field}={value}" for field, value in study.overrides.items()],
            "settings": [words for setting in study.settings if (words := described(setting))],
        }
        for said in dict.fromkeys(cell.tuned for cell in self.cells if cell.tuned):
            named[said] = dict.fromkeys(f"{cell.dataset} {cell.method}" for cell in self.cells if cell.tuned == said)
        return "\n".join(f"{what}: {', '.join(names)}" for what, names in named.items() if names)

    def table(self) -> Table:
        """The plan as it is printed before anything starts."""
        missing = [run.key for run in self.missing]
        table = Table(title=f"Plan of study {self.study.name}: {len(self.cells)} cells", title_justify="left")
        table.add_column("stage")
        for column in ("unique runs", "saved by sharing", "already done", "to compute"):
            table.add_column(column, justify="right")
        for stage, asked in self.asked.items():
            unique = self.count(stage)
            figures = (unique, asked - unique, self.count(stage, self.done), self.count(stage, missing))
            table.add_row(stage, *map(str, figures))
        total = (len(self.runs), sum(self.asked.values()) - len(self.runs), len(self.done), len(missing))
        table.add_row("both", *map(str, total), style="bold")
        return table


@dataclass(frozen=True, kw_only=True)
class Study:
    """What to compare. `datasets` are canonical folders; `overrides` are dotted fields of RunConfig.

    `settings` are further overrides, of which every cell has one: a value of what the study varies. `stage` is the one
    whose run the cells show; a study of quantizers trains no recommenders but teachers. `tuned` is the folder of the
    tuned configs, None to do without: see `sweeps.tuned`.
    """

    name: str
    methods: tuple[str, ...]
    datasets: tuple[Path, ...]
    seeds: int = 1
    profile: str = "small"
    overrides: Mapping[str, Any] = field(default_factory=dict)
    settings: tuple[Mapping[str, Any], ...] = ({},)
    stage: Stage = "recommender"
    tuned: Path | None = None

    def __post_init__(self) -> None:
        for method in self.methods:
            require_known("variant", method, METHODS)
            if self.stage == "quantizer" and METHODS[method].quantizer is None:
                raise InputError(f"variant {method} has no quantizer", "leave it out of this study")
        labels: dict[str, str] = {}
        for method in self.methods:
            label = METHODS[method].label
            if (other := labels.setdefault(label, method)) != method:
                raise InputError(f"variants {other} and {method} are both called {label!r}", "rename one")
        require_known("profile", self.profile, PROFILES)
        if not re.fullmatch(r"\w[\w.-]*", self.name):
            raise InputError(f"study name {self.name!r} is no file name", "use letters, digits, - and _")
        if self.seeds < 1:
            raise InputError(f"--seeds {self.seeds} is not a number of seeds", "give 1 or more")
        if not self.methods or not self.datasets or not self.settings:
            raise InputError("the study has no cells", "give at least one variant and one data set")
        if varied := set(self.overrides) & set().union(*self.settings):
            raise InputError(f"--set {min(varied)} is what this study varies", "leave it out")

    def plan(self, store: Store) -> Plan:
        """The graph of runs. Raises InputError for a bad folder, data set or override, or two data sets of one name."""
        cells: list[Cell] = []
        runs: dict[str, Run] = {}
        folders: dict[str, str] = {}
        counts: dict[str, Mapping[str, float]] = {}
        for folder, dataset in load_datasets(self.datasets):
            folders[dataset.fingerprint], counts[dataset.name] = str(folder), statistics(dataset)
            for seed, setting in product(range(self.seeds), self.settings):
                first: dict[str, str] = {}
                for method in dict.fromkeys(self.methods):
                    overrides = own_overrides({**self.overrides, **setting}, method, self.methods)
                    found = tuned_for(self.tuned, method, dataset, self.profile)
                    run = run_config(method, dataset, seed, self.profile, overrides, found.overrides)
                    stages = stage_runs(run, method, str(folder), setting)
                    stages = stages if self.stage == "recommender" else stages[:-1]
                    same = first.setdefault(stages[-1].key, method)
                    for stage_run in stages:
                        runs.setdefault(stage_run.key, stage_run)
                    cells.append(
                        Cell(
                            method=method,
                            label=METHODS[method].label,
                            dataset=dataset.name,
                            fingerprint=dataset.fingerprint,
                            seed=seed,
                            setting=described(setting),
                            quantizer_key=run.quantizer_key,
                            run_key=stages[-1].key,
                            teacher_key=None if run.teacher is None else run.teacher.recommender_key,
                            tuned=found.note,
                            note=note(method, same, dataset, {*self.overrides, *setting} - set(overrides), found.note),
                        )
                    )
        runs = dict(sorted(runs.items(), key=lambda item: item[1].stage))  # quantizers first
        recommenders = [key for key, run in runs.items() if run.stage == "recommender"]
        quantizers = [key for key, run in runs.items() if run.stage == "quantizer"]
        scores = {key: score for key in recommenders if (score := selected_score(store, key)) is not None}
        done = frozenset([*scores, *(key for key in quantizers if store.has("quantizer", key))])
        found: dict[str, Any] = {"done": done, "scores": scores, "folders": folders, "statistics": counts}
        return Plan(study=self, cells=tuple(cells), runs=runs, **found)


def own_overrides(overrides: Mapping[str, Any], method: str, methods: Collection[str]) -> dict[str, Any]:
    """The overrides for one of the methods: those that it has a field for, and those that none has: an error."""
    others = [path for path in overrides if any(has_field(other, path) for other in methods)]
    return {p: value for p, value in overrides.items() if p not in others or has_field(method, p)}


def load_datasets(folders: Collection[Path]) -> list[tuple[Path, Dataset]]:
    """Each data set once, under its absolute folder (workers change their working directory)."""
    loaded: dict[str, tuple[Path, Dataset]] = {}
    for folder in dict.fromkeys(Path(f).expanduser().resolve() for f in folders):
        dataset = load_dataset(folder)
        require_targets(dataset)
        other = loaded.setdefault(dataset.name, (folder, dataset))
        if other[1].fingerprint != dataset.fingerprint:
            raise InputError(f"{other[0]} and {folder} are different data sets named {dataset.name!r}", "rename one")
    return list(loaded.values())


def stage_runs(run: RunConfig, method: str, folder: str, setting: Mapping[str, Any] | None = None) -> list[Run]:
    """The runs that a method's run consists of: its teacher's, its quantizer, its recommender."""
    about: dict[str, Any] = {"config": run, "folder": folder, "method": method}
    name, stages = " ".join(filter(None, (run.dataset, method, f"seed {run.seed}", described(setting or {})))), []
    if run.teacher is not None:
        stages += stage_runs(run.teacher, str(METHODS[method].teacher), folder)
    if run.quantizer_key is not None:
        needs = None if run.teacher is None else run.teacher.recommender_key
        stages.append(Run(stage="quantizer", key=run.quantizer_key, name=f"{name} quantizer", needs=needs, **about))
    about |= {"name": f"{name} recommender", "needs": run.quantizer_key}
    return [*stages, Run(stage="recommender", key=run.recommender_key, **about)]
