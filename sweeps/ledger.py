"""The state of a study: what is done, running, pending or failed, and the study file in the store that says so.

The store is the truth: a run is done when its artefact is published, whatever a trial or a driver says.
"""

import logging
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from bbqrec.errors import InputError
from bbqrec.store import Store
from sweeps.scores import SCORE
from sweeps.study import Plan, Run

Status = Literal["pending", "running", "done", "failed"]
log = logging.getLogger(__name__)

WRITE_SECONDS = 1.0
"""Between two writes of the study file: it has every cell, and in a large study a run begins or ends all the time."""


@dataclass(frozen=True)
class Best:
    """The best validation NDCG@10 so far and the run that has it."""

    score: float
    name: str


class Ledger:
    """Status of every run of a plan. `command` is kept in the study file."""

    settled = True
    """The plan has named every run."""

    def __init__(self, plan: Plan, store: Store, command: str = "") -> None:
        self.plan, self.store, self.command = plan, store, command
        self.name, self.folders, self.runs = plan.study.name, plan.folders, plan.runs
        self.missing, self.limit = plan.missing, len(plan.missing)
        self.side_by_side = len({cell.run_key for cell in plan.cells})
        self.unplanned: dict[str, int] = {}
        self.created = datetime.now(UTC).isoformat(timespec="seconds")
        self.status: dict[str, Status] = {key: "done" if key in plan.done else "pending" for key in plan.runs}
        self.errors: dict[str, str] = {}
        self.hopeless: set[str] = set()
        self.best: Best | None = None
        self._changed, self._written = False, float("-inf")
        for key, score in plan.scores.items():
            self._score(key, score)

    def waiting(self) -> list[Run]:
        """The runs that are not begun, recommenders first: so whole cells are finished early."""
        pending = [run for run in self.missing if self.status[run.key] == "pending"]
        return sorted(pending, key=lambda run: run.stage != "recommender")

    def start(self, key: str) -> None:
        """A trial of the run has begun (or begun again)."""
        self.status[key] = "running"
        self._note()

    def report(self, key: str, metrics: Mapping[str, Any]) -> None:
        """An epoch of the run is over."""
        if SCORE in metrics:
            self._score(key, metrics[SCORE])

    def finish(self, key: str) -> None:
        """A trial of the run ended by itself: done if, and only if, its artefact is there."""
        run = self.plan.runs[key]
        if self.store.has(run.stage, key):
            self.status[key] = "done"
            self._note()
        else:
            self.fail(key, f"the run ended, but store {self.store.url} does not hold its artefact")

    def fail(self, key: str, error: str, hopeless: bool = False) -> None:
        """The run failed for good, and so do the runs that wait for it. `hopeless`: it would fail again."""
        failed = {key: error}
        ahead = [key]
        while ahead:
            needed = self.plan.runs[ahead.pop()]
            for run in self.plan.runs.values():
                if run.needs == needed.key and self.status[run.key] == "pending":
                    failed[run.key] = f"{needed.stage} failed: {failed[needed.key]}"
                    ahead.append(run.key)
        self.status |= dict.fromkeys(failed, "failed")
        self.errors |= failed
        if hopeless:
            self.hopeless.update(failed)
        self._note()

    def count(self, status: Status) -> int:
        """Runs in this state among those of this study that are computed or done."""
        return sum(self.status[key] == status for key in self.wanted)

    @property
    def wanted(self) -> list[str]:
        """The runs that are done or have to be computed."""
        return [*self.plan.done, *(run.key for run in self.missing)]

    @property
    def complete(self) -> bool:
        """Whether every cell has its number."""
        return all(self.status[cell.run_key] == "done" for cell in self.plan.cells)

    def cells(self) -> list[dict[str, Any]]:
        """The cells with status and error, as the study file keeps them."""
        rows = []
        for cell in self.plan.cells:
            status = self.status[cell.run_key]
            if status == "pending" and any(self.status[key] == "running" for key in self.plan.behind(cell.run_key)):
                status = "running"
            rows.append({**asdict(cell), "status": status, "error": self.errors.get(cell.run_key)})
        return rows

    def description(self) -> dict[str, Any]:
        """The study file."""
        study = self.plan.study
        return {
            "name": study.name,
            "key": self.plan.key,
            "created": self.created,
            "command": self.command,
            "stage": study.stage,
            "profile": study.profile,
            "overrides": dict(study.overrides),
            "datasets": {name: dict(counts) for name, counts in self.plan.statistics.items()},
            "cells": self.cells(),
            "plan": self.plan.summary(),
        }

    def keep_up(self) -> None:
        """Writes what has changed, unless it was written only just now."""
        if self._changed and time.monotonic() - self._written >= WRITE_SECONDS:
            self.write()

    def write(self, final: bool = False) -> None:
        """Writes the study file, and a copy under the study's plain name. Only a fault of the `final` one stops it.

        At the end nothing runs any more: runs that were interrupted are pending.
        """
        if final:
            self.status = {key: "pending" if state == "running" else state for key, state in self.status.items()}
        try:
            for name in (self.plan.key, self.plan.study.name):
                self.store.write_json(f"study/{name}.json", self.description())
        except InputError as error:
            if final:
                raise
            log.warning("the study file could not be written: %s", error)
        self._changed, self._written = False, time.monotonic()

    def _note(self) -> None:
        self._changed = True
        self.keep_up()

    def _score(self, key: str, score: float) -> None:
        if self.best is None or score > self.best.score:
            self.best = Best(score, self.plan.runs[key].name.removesuffix(" recommender"))
