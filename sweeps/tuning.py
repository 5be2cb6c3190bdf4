"""Equal tuning: every method of Table 2, BBQRec included, gets the same number of trials on validation data.

    python sweeps/tuning.py                                          embedded synthetic data set, profile tiny
    python sweeps/tuning.py --dataset data/toys --methods sasrec tiger --trials 12 --seed 0 --profile small

Writes sweeps/tuned/<data set>/<method>.json, which the studies use from then on (`--untuned` leaves them alone). What
is tried: `search_spaces.py`; the default config comes first. TPE suggests, ASHA stops. A trial trains stage 2 and
validates, nothing reads the test split; a new quantizer is trained in full, by its profile, and so is a teacher, whose
run is the study's. A trial has its profile's epochs, as many as the study that will use the choice; with `--epochs`,
every method has so many. Cost: at most methods x trials x epochs, and a quantizer for every new choice of its fields.
The same command again computes only what is missing, also after a fault.
"""

import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

if __name__ == "__main__":  # run as a file: the packages lie beside this folder, which is none to import from
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from ray import tune
from rich.console import Console

from bbqrec.config import digest
from bbqrec.errors import InputError, require_known
from bbqrec.methods import METHODS, run_config
from bbqrec.profiles import PROFILES
from bbqrec.schema import Dataset
from sweeps.command import SweepCommand, main
from sweeps.command_line import overrides
from sweeps.launch import compute
from sweeps.search_spaces import TUNABLE, space_for
from sweeps.series import Series
from sweeps.study import load_datasets, own_overrides
from sweeps.trials import Budget
from sweeps.tuned import TUNED, read_tuned_file, tuned_file, written_to
from sweeps.tuning_ledger import TuningLedger
from sweeps.tuning_tables import outcome, plan, scope, summary


@dataclass(frozen=True, kw_only=True)
class Tuning(SweepCommand):
    """Tune methods by the same budget each, on validation data. The same command again computes only what is missing.

    Example: python sweeps/tuning.py --dataset data/toys --methods sasrec tiger --trials 12
    """

    methods: tuple[str, ...] = TUNABLE
    """Methods to tune, out of those of Table 2."""
    fields: tuple[str, ...] = ()
    """Vary these alone, such as recommender.dropout, as far as a method's space has them. Default: all of it."""
    trials: int = 12
    """Trials of each method; the first one is its default config."""
    epochs: int | None = None
    """Epochs of a trial's stage 2. Default: its profile's, of each method. Far fewer prefer what learns fast."""
    grace: int | None = None
    """Epochs before a trial may be stopped. Default: a quarter of its epochs."""
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
        resources, trackers = self.resources(), self.trackers()
        given = overrides(self.set)
        self._check(given)
        store = self.opened()
        series = self.series(load_datasets(self.folders(store)), given)
        ledger = TuningLedger(series, store, Path(self.tuned), command)
        console.print(plan(ledger))
        console.print(scope(ledger, self.size, given), highlight=False, markup=False, soft_wrap=True)
        if self.dry_run:
            return 0
        if self.submit is not None and ledger.missing:
            budgets = [asdict(one.budget) for one in series]
            about = [sorted(self.methods), sorted(self.fields), self._points()]
            of = [sorted(ledger.folders), self.size, given, budgets, *about]
            key = digest(of)[:8]
            about = {"study": f"{self.name}-{key}", "folders": ledger.folders, "out": written_to(self.tuned)}
            return self.submitted(store, console, command, **about)
        ledger.write(final=True)  # a folder that cannot be written is found out before the first epoch
        compute(ledger, resources, console=console, trackers=trackers, stopper=Stopper(ledger))
        console.print(summary(ledger))
        console.print("\n".join(map(outcome, ledger.series)), highlight=False, markup=False, soft_wrap=True)
        return _status(ledger)

    def series(self, datasets: list[tuple[Path, Dataset]], given: dict[str, str]) -> list[Series]:
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
            about: dict[str, Any] = {"dataset": dataset, "folder": folder, "profile": self.size}
            for method in sorted(dict.fromkeys(self.methods), key=lambda name: METHODS[name].teacher is not None):
                own = own_overrides(given, method, self.methods)
                whole = run_config(method, dataset, self.seed, self.size, own).recommender.epochs
                made[dataset.name, method] = Series(
                    method=method,
                    overrides=own,
                    fields=self.fields,
                    budget=self._budget(whole if self.epochs is None else self.epochs),
                    tuned=Path(self.tuned),
                    points=points.get(method, ())[: self.trials - 1],
                    after=made.get((dataset.name, str(METHODS[method].teacher))),
                    **about,
                )
        return list(made.values())

    def _budget(self, epochs: int) -> Budget:
        """What a method gets whose trials have so many epochs."""
        return Budget(
            trials=self.trials,
            epochs=epochs,
            grace=max(1, epochs // 4) if self.grace is None else self.grace,
            factor=self.factor,
            stop=self.stop,
            parallel=self.parallel,
            seed=self.seed,
        )

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
        spaces = {path for method in self.methods for path in space_for(method)}
        for path in self.fields:
            require_known("field to vary", path, sorted(spaces))
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
