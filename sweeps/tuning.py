"""Equal tuning: every method of Table 2, BBQRec included, gets the same number of trials and epochs on validation data.

    python sweeps/tuning.py                                          embedded synthetic data set, profile tiny
    python sweeps/tuning.py --dataset data/toys --methods sasrec tiger --trials 12 --epochs 10 --seed 0 --profile small

Writes sweeps/tuned/<data set>/<method>.json, which the studies use from then on (`--untuned` leaves them alone). What
is tried: `search_spaces.py`; the default config comes first. TPE suggests, ASHA stops. A trial trains stage 2 and
validates, nothing reads the test split; a new quantizer is trained in full, by its profile, and so is a teacher, whose
run is the study's. Cost: at most methods x trials x epochs, and a quantizer for every new choice of its fields. The
same command again computes only what is missing, also after a fault.
"""

import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

if __name__ == "__main__":  # run as a file: the packages lie beside this folder, which is none to import from
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from ray import tune
from rich.console import Console
from rich.table import Table

from bbqrec.config import digest
from bbqrec.errors import InputError, require_known
from bbqrec.methods import METHODS
from bbqrec.profiles import PROFILES
from bbqrec.schema import Dataset
from sweeps.command import SweepCommand, main
from sweeps.command_line import overrides
from sweeps.launch import compute
from sweeps.search_spaces import TUNABLE, LogUniform
from sweeps.series import Series
from sweeps.study import load_datasets, own_overrides
from sweeps.trials import Budget
from sweeps.tuned import TUNED, read_tuned_file, tuned_file, written_to
from sweeps.tuning_ledger import TuningLedger


@dataclass(frozen=True, kw_only=True)
class Tuning(SweepCommand):
    """Tune methods by the same budget each, on validation data. The same command again computes only what is missing.

    Example: python sweeps/tuning.py --dataset data/toys --methods sasrec tiger --trials 12 --epochs 10
    """

    methods: tuple[str, ...] = TUNABLE
    """Methods to tune, out of those of Table 2."""
    trials: int = 12
    """Trials of each method; the first one is its default config."""
    epochs: int = 10
    """Epochs of a trial's stage 2."""
    grace: int | None = None
    """Epochs before a trial may be stopped. Default: a quarter of --epochs."""
    factor: int = 3
    """At a rung (the grace period, FACTOR times that, ...) the best 1 / FACTOR of the trials so far go on."""
    stop: Literal["asha", "median", "none"] = "asha"
    """What stops a trial early: ASHA, the median of the others, or nothing."""
    seed_points: tuple[Path, ...] = ()
    """Tuned configs (files of --tuned) to try after the default, for instance those of another data set."""
    parallel: int = 1
    """Trials of a method side by side. They do not learn from each other: more is faster, but less clever."""
    seed: int = 0
    """Seed of the suggestions and of every run."""
    tuned: str = str(TUNED)
    """Folder to write to, where studies look."""

    name = "tuning"

    def run(self, console: Console, command: str) -> int:
        """Exit status: 0 with every method tuned, 1 if one failed, 130 after an interrupt."""
        budget = Budget(
            trials=self.trials,
            epochs=self.epochs,
            grace=max(1, self.epochs // 4) if self.grace is None else self.grace,
            factor=self.factor,
            stop=self.stop,
            parallel=self.parallel,
            seed=self.seed,
        )
        resources, trackers = self.resources(), self.trackers()
        given = overrides(self.set)
        self._check(given)
        store = self.opened()
        series = self.series(load_datasets(self.folders(store)), given, budget)
        ledger = TuningLedger(series, store, Path(self.tuned), command)
        console.print(plan(ledger, budget))
        console.print(scope(ledger, self.size, given), highlight=False, markup=False, soft_wrap=True)
        if self.dry_run:
            return 0
        if self.submit is not None and ledger.missing:
            of = [sorted(ledger.folders), self.size, given, asdict(budget), sorted(self.methods), self._points()]
            key = digest(of)[:8]
            about = {"study": f"{self.name}-{key}", "folders": ledger.folders, "out": written_to(self.tuned)}
            return self.submitted(store, console, command, **about)
        ledger.write(final=True)  # a folder that cannot be written is found out before the first epoch
        compute(ledger, resources, console=console, trackers=trackers, stopper=Stopper(ledger))
        console.print(summary(ledger))
        console.print("\n".join(map(_outcome, ledger.series)), highlight=False, markup=False, soft_wrap=True)
        return _status(ledger)

    def series(self, datasets: list[tuple[Path, Dataset]], given: dict[str, str], budget: Budget) -> list[Series]:
        """One for every data set and method; a method with a teacher that is tuned as well goes after it."""
        points = self._points()
        written = {
            tuned_file(Path(self.tuned), dataset.name, m).resolve() for _, dataset in datasets for m in self.methods
        }
        for path in self.seed_points:
            if path.resolve() in written:  # else the same command would start from other points the next time
                raise InputError(f"--seed-points {path} is what this command writes", "give a copy of it")
        made: dict[tuple[str, str], Series] = {}
        for folder, dataset in datasets:
            about: dict[str, Any] = {"dataset": dataset, "folder": folder, "profile": self.size, "budget": budget}
            for method in sorted(dict.fromkeys(self.methods), key=lambda name: METHODS[name].teacher is not None):
                made[dataset.name, method] = Series(
                    method=method,
                    overrides=own_overrides(given, method, self.methods),
                    tuned=Path(self.tuned),
                    points=points.get(method, ())[: self.trials - 1],
                    after=made.get((dataset.name, str(METHODS[method].teacher))),
                    **about,
                )
        return list(made.values())

    def _points(self) -> dict[str, list[dict[str, Any]]]:
        """Overrides of the seed points, by method."""
        points: dict[str, list[dict[str, Any]]] = {}
        for path in self.seed_points:
            found = read_tuned_file(path)
            if found is None:
                raise InputError(f"--seed-points {path} does not exist", "give files that this command wrote")
            points.setdefault(found["method"], []).append(found["overrides"])
        if points and not points.keys() & set(self.methods):
            raise InputError(f"--seed-points are of {', '.join(points)}, not tuned here", "leave them out")
        return points

    def _check(self, given: dict[str, str]) -> None:
        for method in self.methods:
            if "/" in method and method in METHODS:
                raise InputError(
                    f"variant {method} is not tuned", f"tune {method.partition('/')[0]}: it takes its config"
                )
            require_known("method", method, TUNABLE)
        require_known("profile", self.size, PROFILES)
        if not self.methods:
            raise InputError("there is nothing to tune", "give at least one method")
        if "recommender.epochs" in given:
            raise InputError("--set recommender.epochs is the budget", "use --epochs")
        if not self.tuned or (Path(self.tuned).exists() and not Path(self.tuned).is_dir()):
            raise InputError(f"--tuned {self.tuned!r} is no folder", "give a folder to write to")


class Stopper(tune.Stopper):
    """Stops what the ledger says is to be stopped."""

    def __init__(self, ledger: TuningLedger) -> None:
        self.ledger = ledger

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return "epoch" in result and self.ledger.stops(result["config"]["key"], result)

    def stop_all(self) -> bool:
        return False

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune pickles it for a restore that is never used


def plan(ledger: TuningLedger, budget: Budget) -> Table:
    """The table that is printed before anything starts."""
    stops = {
        "asha": f"ASHA at {', '.join(map(str, budget.rungs)) or 'none'}",
        "median": f"the median rule from {budget.grace}",
        "none": "no stops",
    }[budget.stop]
    title = f"Plan of tuning: {len(ledger.series)} x {budget.trials} trials of {budget.epochs} epochs, {stops}"
    table = Table(title=title, title_justify="left")
    for column in ("data set", "method"):
        table.add_column(column)
    for column in ("fields", "trials", "already done", "to go"):
        table.add_column(column, justify="right")
    for series in ledger.series:
        told = len(series.told)
        figures = (len(series.space), budget.trials, told, budget.trials - told)
        table.add_row(series.dataset.name, series.method, *map(str, figures))
    return table


def scope(ledger: TuningLedger, profile: str, given: dict[str, str]) -> str:
    """Profile, overrides, number of seed points, and every method's space, a line each."""
    lines = [f"profile: {profile}"]
    lines += [f"set: {', '.join(f'{path}={value}' for path, value in given.items())}"] if given else []
    if points := {series.method: len(series.points) for series in ledger.series if series.points}:
        lines.append(f"seed points: {', '.join(f'{method} {count}' for method, count in points.items())}")
    for series in {series.method: series for series in ledger.series}.values():
        domains = []
        for path, domain in series.space.items():
            values = f"{domain.low:g} to {domain.high:g}" if isinstance(domain, LogUniform) else _joined(domain.values)
            domains.append(f"{path} {values} (default {series.default[path]:g})")
        lines.append(f"{series.method}: {'; '.join(domains)}")
    return "\n".join(lines)


def summary(ledger: TuningLedger) -> Table:
    """What was found: a row per data set and method."""
    table = Table(title="Tuned by validation NDCG@10", title_justify="left")
    for column in ("data set", "method"):
        table.add_column(column)
    for column in ("trials", "stopped", "diverged", "epochs", "best", "default"):
        table.add_column(column, justify="right")
    for series in ledger.series:
        trials, best = series.trials, series.chosen
        ends = [trial.end for trial in trials]
        figures = (len(trials), ends.count("stopped"), ends.count("diverged"), sum(len(t.scores) for t in trials))
        scores = [best and best.score, trials[0].score if trials else None]
        shown = [f"{score:.4f}" if score is not None else "-" for score in scores]
        table.add_row(series.dataset.name, series.method, *map(str, figures), *shown)
    return table


def _outcome(series: Series) -> str:
    """What was chosen, or why nothing was."""
    if series.chosen is not None:
        values = " ".join(f"{path}={value:g}" for path, value in series.chosen.overrides.items())
        where = tuned_file(series.tuned, series.dataset.name, series.method)
        return f"{series.name}: {values}{' (the default)' if series.chosen.number == 0 else ''}, in {where}"
    return f"{series.name}: {series.failed or ('every trial diverged' if series.complete else 'not finished')}"


def _joined(values: tuple[float, ...]) -> str:
    return " ".join(f"{value:g}" for value in values)


def _status(ledger: TuningLedger) -> int:
    broken = [
        series for series in ledger.series if series.failed is not None or (series.complete and not series.chosen)
    ]
    for series in broken:
        why = f"{series.failed}; the same command tries it again" if series.failed else "every trial diverged"
        print(f"failed: {series.name}: {why}", file=sys.stderr)
    if not ledger.settled:
        raise KeyboardInterrupt
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main(Tuning))
