"""Population-based training: the learning rate and its like change while stage 2 trains, on validation data.

    python sweeps/pbt.py                                             sasrec on the embedded data set, profile tiny
    python sweeps/pbt.py --dataset data/toys --method sasrec --population 6 --epochs 12 --interval 2 --seed 0

Every few epochs the worst members take over the weights of the best and go on with values near theirs (Ray Tune's
PopulationBasedTraining, synchronous). Writes sweeps/tuned/<data set>/<method>.pbt.json. A schedule is no config, so
studies do not use it; its last values are a seed point of sweeps/tuning.py. Nothing reads the test split. Cost:
population x epochs, and a quantizer if the store has none. What was interrupted is lost: the same command starts again.
"""

import sys
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # run as a file: the packages lie beside this folder, which is none to import from
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from rich.console import Console
from rich.table import Table

from bbqrec.config import digest
from bbqrec.errors import InputError, require_known
from bbqrec.files import one_line
from bbqrec.methods import METHODS, has_field, run_config
from bbqrec.profiles import PROFILES
from bbqrec.provenance import now
from bbqrec.run import RunConfig
from sweeps import job
from sweeps.command import SweepCommand, main
from sweeps.command_line import overrides
from sweeps.evolution import evolve
from sweeps.groundwork import lay_groundwork, missing
from sweeps.population import FACTORS, QUANTILE, RESAMPLE, Population, PopulationBudget, first_values, in_words
from sweeps.search_spaces import TUNABLE, Space, default, perturbable, space_of
from sweeps.study import load_datasets
from sweeps.tuned import TUNED, tuned_for, write_tuned, written_to
from sweeps.tuning_ledger import made_by


@dataclass(frozen=True, kw_only=True)
class PBT(SweepCommand):
    """Train a population of one method, whose worst members are replaced by changed copies of the best, on validation
    data. It cannot be resumed: an interrupted one, or one whose driver was killed, starts again from its first epoch.

    Example: python sweeps/pbt.py --dataset data/toys --method sasrec --population 6 --epochs 12 --interval 2
    """

    method: str = "sasrec"
    """Method to train, out of those of Table 2."""
    population: int = 6
    """Members; the first one starts with the config that a study would use."""
    epochs: int = 12
    """Epochs of stage 2 of each member."""
    interval: int = 2
    """Epochs after which the worst quarter of the members takes over the weights of the best quarter."""
    seed: int = 0
    """Seed of all that is drawn, and of every member's run."""
    tuned: str = str(TUNED)
    """Folder to write to. A tuned config that is there is what the members start from, as a study would."""
    untuned: bool = False
    """Leave the tuned config alone."""

    name = "pbt"

    def run(self, console: Console, command: str) -> int:
        """Exit status: 0 with the file written, 1 if a run failed or every member diverged, 130 after an interrupt."""
        budget = PopulationBudget(
            population=self.population, epochs=self.epochs, interval=self.interval, seed=self.seed
        )
        resources, trackers, given = self.resources(), self.trackers(), overrides(self.set)
        self._check(given)
        store = self.opened()
        ((folder, dataset),) = load_datasets(self.folders(store))
        tuned = tuned_for(None if self.untuned else Path(self.tuned), self.method, dataset, self.size)
        tried = {**tuned.overrides.get(self.method, {}), "recommender.epochs": self.epochs}
        run = run_config(self.method, dataset, self.seed, self.size, given, {**tuned.overrides, self.method: tried})
        space = perturbable(space_of(self.method, run, given))
        if not space:
            raise InputError("--set leaves nothing that a population could vary", "leave one of its fields out")
        start = first_values(space, {path: default(run, path) for path in space}, self.population, self.seed)
        console.print(_plan(f"{dataset.name} {self.method}", budget, start))
        ahead = missing(run, self.method, folder, store)
        said = [f"profile: {self.size}", f"set: {', '.join(self.set)}" if self.set else "", tuned.note or ""]
        said += [f"before it: {', '.join(run.name for run in ahead)}" if ahead else ""]
        said += ["an interrupted population starts again from its first epoch"]
        console.print("\n".join(filter(None, said)), highlight=False, markup=False, soft_wrap=True)
        if self.dry_run:
            return 0
        if self.submit is not None:
            key = digest([run.recommender_key, self.size, asdict(budget), start])[:8]
            about = {"study": f"{self.name}-{key}", "folders": {run.fingerprint: str(folder)}}
            return self.submitted(store, console, command, **about, out=written_to(self.tuned))
        self._try_folder(dataset.name)
        shared: dict[str, Any] = {"console": console, "trackers": trackers}
        errors = lay_groundwork(run, self.method, self.size, folder, store, resources, name=self.name, **shared)
        if errors:
            return _failed(*(f"{name}: {error}" for name, error in errors.items()))
        found, error = evolve(run, self.method, folder, space, start, budget, store, resources, **shared)
        if error is not None:
            return _failed(f"{error}; the same command starts again")
        if not found.complete:
            print("interrupted: the same command starts again, as a population is not resumed", file=sys.stderr)
            return 130
        if found.best is None:
            return _failed(f"{dataset.name} {self.method}: every member diverged")
        made = {**made_by(command), "date": now()}
        about = {"profile": self.size, "set": given, "start": tuned.note or "the profile's config"}
        described = describe(found, self.method, run, about, space, space_of(self.method, run, given))
        path = write_tuned(Path(self.tuned), {**described, "made": made}, ".pbt")
        job.keep(store, dataset.name, f"{self.method}.pbt", {**described, "made": made})
        console.print(_outcome(described, path), highlight=False, markup=False, soft_wrap=True)
        return 0

    def _check(self, given: Mapping[str, str]) -> None:
        if "/" in self.method and self.method in METHODS:
            what = f"variant {self.method} has no population"
            raise InputError(what, f"take {self.method.partition('/')[0]}: its config is the variant's")
        require_known("method", self.method, TUNABLE)
        require_known("profile", self.size, PROFILES)
        if len(self.dataset) > 1:
            raise InputError("a population is of one data set", "run the command once for each")
        for path in given:
            if not has_field(self.method, path):
                raise InputError(f"--set {path} is no field of {self.method}", "leave it out")
        if "recommender.epochs" in given:
            raise InputError("--set recommender.epochs is the budget", "use --epochs")
        if self.workers_per_run > 1:
            raise InputError("--workers-per-run: a member is trained by one process", "leave it out")
        if self.max_concurrent is not None:
            raise InputError("--max-concurrent: members wait for each other", "give each more --cpus-per-run instead")
        if not self.tuned or (Path(self.tuned).exists() and not Path(self.tuned).is_dir()):
            raise InputError(f"--tuned {self.tuned!r} is no folder", "give a folder to write to")

    def _try_folder(self, dataset: str) -> None:
        """A folder that cannot be written is found out before the first epoch."""
        folder = Path(self.tuned) / dataset
        try:
            folder.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=folder).close()
        except OSError as error:
            raise InputError(f"cannot write {folder} ({one_line(error)})", "give a writable --tuned folder") from error


def describe(
    found: Population, method: str, run: RunConfig, about: Mapping[str, Any], space: Space, whole: Space
) -> dict[str, Any]:
    """The file of a population that is complete and has a best member, but for who made it and when.

    `overrides` are the best member's last values and, for the other fields of the `whole` space of tuning, the config
    that all members share: so the file is a seed point.
    """
    assert found.best is not None
    member, number = found.best
    best, budget = found.epochs[member][number], asdict(found.budget)
    return {
        "method": method,
        "dataset": run.dataset,
        "fingerprint": run.fingerprint,
        "overrides": {path: default(run, path) for path in whole} | dict(best.values),
        **about,
        "score": best.score,
        "member": member,
        "epoch": number,
        "seed": budget.pop("seed"),
        "budget": {**budget, "quantile": QUANTILE, "resample": RESAMPLE, "factors": list(FACTORS)},
        "space": {path: asdict(domain) for path, domain in space.items()},
        "quantizer_key": run.quantizer_key,
        "schedule": found.schedule(member, number),
        "exploits": found.exploits(),
        "members": found.curves(),
    }


def _plan(name: str, budget: PopulationBudget, start: list[dict[str, float]]) -> Table:
    """What each member starts with."""
    size, epochs, interval = budget.population, budget.epochs, budget.interval
    title = f"Plan of pbt: {name}, {size} members of {epochs} epochs, compared every {interval}"
    table = Table(title=title, title_justify="left")
    for column in ("member", *start[0]):
        table.add_column(column, justify="right")
    for member, values in enumerate(start):
        table.add_row(str(member), *(f"{value:g}" for value in values.values()))
    return table


def _outcome(found: Mapping[str, Any], path: Path) -> str:
    """The best score, how its values changed, where it is written."""
    lines = [
        f"best validation NDCG@10 {found['score']:.4f}: member {found['member']} after epoch {found['epoch']}, "
        f"{len(found['exploits'])} take-overs in all"
    ]
    before = None
    for line in found["schedule"]:
        if line["values"] != before:
            lines.append(f"from epoch {line['epoch']}: {in_words(line['values'])}")
        before = line["values"]
    return "\n".join([*lines, f"written to {path}: a seed point for sweeps/tuning.py --seed-points"])


def _failed(*errors: str) -> int:
    for error in errors:
        print(f"failed: {error}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main(PBT))
