"""The state of a tuning: the trials of every series, and the runs that they wait for.

As with a study, the store is the truth: what it holds is told at once when the same tuning is made again.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from platform import python_version
from typing import Any

from bbqrec.errors import InputError
from bbqrec.provenance import now
from bbqrec.store import Store
from sweeps import job
from sweeps.ledger import Best, Status
from sweeps.scores import SCORE, Curve, known_curve, note_curve
from sweeps.series import AtHand, Series
from sweeps.study import Run
from sweeps.tuned import write_tuned

log = logging.getLogger(__name__)

PACKAGES = ("bbqrec", "numpy", "optuna", "ray", "torch")
"""Whose versions a tuned config names."""


class TuningLedger:
    """Hands out the runs of the trials at hand, takes in their reports, and writes the choice of a series that is over.

    `folder` is that of the tuned configs; `command` goes into them.
    """

    name = "tuning"
    limit = -1
    """Runs that there will be, which nobody knows."""

    def __init__(self, series: Sequence[Series], store: Store, folder: Path, command: str = "") -> None:
        self.series, self.store, self.folder = series, store, folder
        self.made = made_by(command)
        self.status: dict[str, Status] = {}
        self.runs: dict[str, Run] = {}
        self.errors: dict[str, str] = {}
        self.hopeless: set[str] = set()
        self._advance()

    @property
    def folders(self) -> dict[str, str]:
        """Fingerprint of each data set -> its folder."""
        return {series.dataset.fingerprint: str(series.folder) for series in self.series}

    @property
    def side_by_side(self) -> int:
        """Runs that can be at work at once."""
        return sum(series.budget.parallel for series in self.series)

    @property
    def settled(self) -> bool:
        """Whether no run will follow."""
        return all(series.over for series in self.series)

    @property
    def complete(self) -> bool:
        """Whether every trial is told."""
        return all(series.complete for series in self.series)

    @property
    def best(self) -> Best | None:
        """The best validation NDCG@10 so far and the trial that has it."""
        found = [
            Best(t.score, f"{s.name} trial {t.number}") for s in self.series for t in s.trials if t.score is not None
        ]
        at_hand = [trial for series in self.series for trial in series.at_hand.values()]
        found += [Best(max(t.curve.scores), t.run.name) for t in at_hand if t.curve.scores]
        return max(found, key=lambda best: best.score, default=None)

    @property
    def missing(self) -> list[Run]:
        """What the trials at hand still need, those of the series that is furthest behind first."""
        behind = sorted((s for s in self.series if not s.over), key=lambda s: len(s.told))
        runs = [run for series in behind for trial in series.at_hand.values() for run in self._needed(trial)]
        return list({run.key: run for run in runs}.values())

    @property
    def unplanned(self) -> dict[str, int]:
        """Epochs of the trials that are still to be suggested, by stage."""
        ahead = [series for series in self.series if not series.over]
        return {"trial": sum((s.budget.trials - len(s.told) - len(s.at_hand)) * s.budget.epochs for s in ahead)}

    @property
    def wanted(self) -> range:
        """A place for every trial."""
        return range(sum(series.budget.trials for series in self.series))

    def count(self, status: Status) -> int:
        """Trials that are told, series that failed, runs in any other state."""
        if status == "done":
            return sum(len(series.told) for series in self.series)
        if status == "failed":
            return sum(series.failed is not None for series in self.series)
        return sum(self.status[run.key] == status for run in self.missing)

    def waiting(self) -> list[Run]:
        """The runs that are not begun, in the order in which they should be."""
        return [run for run in self.missing if self.status[run.key] == "pending"]

    def start(self, key: str) -> None:
        """A Ray trial of the run has begun (or begun again)."""
        self.status[key] = "running"

    def report(self, key: str, metrics: Mapping[str, Any]) -> None:
        """An epoch of the run is over."""
        if SCORE not in metrics:
            return
        before, score = metrics["epoch"] - 1, metrics[SCORE]
        for series, number, trial in self._reading(key):
            if trial.run.key != key:
                continue  # the scores of a teacher
            scores = trial.curve.scores
            if len(scores) < before:  # a report was lost with a worker, but not its checkpoint
                scores = known_curve(self.store, trial.store_key).scores
            series.at_hand[number] = replace(trial, curve=Curve(scores=(*scores[:before], score)))

    def stops(self, key: str, metrics: Mapping[str, Any]) -> bool:
        """Whether ASHA stops the run after this report."""
        self.report(key, metrics)
        trials = [(series, trial) for series, _, trial in self._reading(key) if trial.run.key == key]
        return bool(trials) and all(t.stopped_at(t.curve.scores, s.budget) is not None for s, t in trials)

    def finish(self, key: str) -> None:
        """A Ray trial of the run ended by itself, or was stopped."""
        run = self.runs[key]
        stage_key = run.config.recommender_key if run.stage == "trial" else key
        published = self.store.has(run.stage, stage_key)
        if not published and not self.stops(key, {}):
            self.fail(key, f"the run ended, but store {self.store.url} does not hold its artefact")
            return
        self.status[key] = "done"
        if run.stage == "trial":
            for series, number, trial in self._reading(key):
                curve = known_curve(self.store, stage_key) if published else trial.curve
                series.tell(number, curve)
            if not published:
                note_curve(self.store, stage_key, curve)
        self._advance()
        self.write()

    def fail(self, key: str, error: str, hopeless: bool = False) -> None:
        """The run failed for good. If it is `hopeless`, it is the config's fault: its trials diverged.

        Else their series end, as the suggestions that follow would depend on what is not known.
        """
        self.status[key] = "failed"
        self.errors[key] = error
        if hopeless:
            self.hopeless.add(key)
        else:
            for series, _, _ in self._reading(key):
                series.failed = f"{self.runs[key].name}: {error}"
        self._advance()
        self.write()

    def keep_up(self) -> None:
        """Nothing is put off."""

    def write(self, final: bool = False) -> None:
        """Writes the choices of the series that are complete. Only a fault of the `final` write stops it."""
        for series in self.series:
            if series.chosen is not None:
                found = {**series.described(), "made": {**self.made, "date": now()}}
                try:
                    write_tuned(self.folder, found)
                    job.keep(self.store, series.dataset.name, series.method, found)
                except InputError as error:
                    if final:
                        raise
                    log.warning("%s", error)

    def _advance(self) -> None:
        """Takes up trials, until each series has something to run, waits for its teacher's or is over."""
        state = None
        while state != (state := [(len(series.told), series.failed) for series in self.series]):
            for series in self.series:
                series.advance(self.store)
                for number, trial in list(series.at_hand.items()):
                    self._enter(trial)
                    broken = next((run for run in self._needed(trial) if self.status[run.key] == "failed"), None)
                    if broken is not None and broken.key in self.hopeless:
                        curve = Curve(scores=trial.curve.scores, ended=True, error=self.errors[broken.key])
                        note_curve(self.store, trial.store_key, curve)
                        series.tell(number, curve)

    def _enter(self, trial: AtHand) -> None:
        self.runs |= {run.key: run for run in trial.chain}
        for run in trial.chain[:-1]:
            if run.key not in self.status:
                self.status[run.key] = "done" if self.store.has(run.stage, run.key) else "pending"
        if self.status.get(trial.run.key, "done") == "done":
            self.status[trial.run.key] = "pending"  # one that was stopped once may be wanted for longer

    def _needed(self, trial: AtHand) -> list[Run]:
        """What of a trial's chain is not done, last first; what nobody reads any more is left out."""
        runs, needed, key = {run.key: run for run in trial.chain}, [], trial.run.key
        while key is not None and self.status[key] != "done":
            needed.append(runs[key])
            key = runs[key].needs
        return needed

    def _reading(self, key: str) -> Iterator[tuple[Series, int, AtHand]]:
        """The trials at hand that are this run or wait for it."""
        for series in self.series:
            for number, trial in list(series.at_hand.items()):
                if any(run.key == key for run in self._needed(trial)) or trial.run.key == key:
                    yield series, number, trial


def made_by(command: str) -> dict[str, Any]:
    """What a tuned config says of its making, but for the date: the state of the source, the command, the versions."""
    return {**job.source(), "command": command, "versions": _versions()}


def _versions() -> dict[str, str]:
    found = {"python": python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue  # a checkout that is not installed
    return found
