"""The command line that all studies share: parse, plan, launch, report; and what tuning has in common with them."""

import logging
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Protocol

import tyro
from rich.console import Console

from analysis.costs import sentence
from analysis.report import write_report
from analysis.rows import load_rows
from bbqrec.datasets.synthetic import SyntheticConfig, is_generated, prepare_synthetic
from bbqrec.errors import InputError
from bbqrec.methods import METHODS
from bbqrec.store import Store
from sweeps import job, submission
from sweeps.command_line import completed, file_of, overrides, without_passwords
from sweeps.interruption import terminated_like_interrupted
from sweeps.launch import Resources, launch
from sweeps.ledger import Ledger
from sweeps.outlook import outlook
from sweeps.study import Study
from sweeps.trackers import Trackers
from sweeps.tuned import TUNED

log = logging.getLogger(__name__)

EMBEDDED = "synthetic"
"""Name of the data set that comes with the program."""


class Command(Protocol):
    """What `main` runs: the options of a file of this folder, `name`.py."""

    name: ClassVar[str]

    def run(self, console: Console, command: str) -> int: ...


@dataclass(frozen=True, kw_only=True)
class SweepCommand:
    """Options of every command that makes many runs: what they are of, where they go, what each gets."""

    dataset: tuple[Path, ...] = ()
    """Folders written by `bbqrec prepare`. Default: the embedded synthetic data set, generated when first needed."""
    profile: str | None = None
    """Sizes: paper, small (trains on two CPU cores) or tiny. Default: tiny for the embedded data set, else small."""
    set: tuple[str, ...] = ()
    """Fields of the config to override, for instance recommender.epochs=3 quantizer.levels=4."""
    store: str = "runs"
    """Folder or URL (s3://bucket/path) of the results; what it holds already is not computed again."""
    shared_store: bool = False
    """With --cluster: the path given as --store is one folder on every node (NFS, Lustre)."""
    cluster: str | None = None
    """Run on a Ray cluster: host:port of its head, or without a value RAY_ADDRESS or the head on this machine."""
    submit: str | None = None
    """Send the command to a Ray cluster as a job, driver and all: URL of its dashboard (default: RAY_API_SERVER_ADDRESS
    or http://127.0.0.1:8265). `python -m sweeps.jobs` follows and stops it and fetches what it made."""
    gpus_per_run: float | None = None
    """GPUs of each run, also fractions such as 0.25. Default: 1 per worker if there are any, else 0."""
    cpus_per_run: float | None = None
    """CPUs of each run. Default: so many that the runs of the cells fill the machines, at least 1."""
    max_concurrent: int | None = None
    """Runs side by side at most. Default: as many as fit."""
    workers_per_run: int = 1
    """Processes that train one recommender together; its CPUs and GPUs are shared out among them."""
    dashboard: bool = False
    """Start Ray's dashboard (http://127.0.0.1:8265) with the local Ray."""
    dry_run: bool = False
    """Print the plan and stop."""
    logs: Path = Path("out/tensorboard")
    """Folder of the learning curves for TensorBoard (tensorboard --logdir LOGS)."""
    mlflow: str | None = None
    """Track the runs with MLflow, too, at this URI, for instance sqlite:///mlflow.db or http://host:5000."""
    wandb: str | None = None
    """Track the runs with Weights & Biases, too, in this project; offline if WANDB_MODE=offline."""

    name: ClassVar[str]

    @property
    def size(self) -> str:
        """The profile that is asked for, or the one that suits the data set."""
        return self.profile or ("small" if self.dataset else "tiny")

    def resources(self) -> Resources:
        return Resources(
            cluster=self.cluster,
            shared_store=self.shared_store,
            gpus_per_run=self.gpus_per_run,
            cpus_per_run=self.cpus_per_run,
            max_concurrent=self.max_concurrent,
            workers_per_run=self.workers_per_run,
            dashboard=self.dashboard,
        )

    def trackers(self) -> Trackers:
        if self.submit is not None:
            return Trackers(logs=self.logs)  # what the others need, the head must have
        return Trackers(logs=self.logs, mlflow=self.mlflow, wandb=self.wandb)

    def opened(self) -> Store:
        """The store. Nothing is written by a dry run, except the embedded data set, which lies there."""
        if self.submit is not None:
            submission.check(Store(self.store, writable=False), self.shared_store, self.cluster, self.mlflow)
        return Store(self.store, writable=not (self.dry_run and self.dataset))

    def folders(self, store: Store) -> tuple[Path, ...]:
        """The data sets: those given (of a job, which finds them in the store), or the embedded one."""
        return tuple(submission.folder_of(given, store) for given in self.dataset) or (embedded(store),)

    def submitted(self, store: Store, console: Console, command: str, **about: Any) -> int:
        """Sends this command as a job; `about` is the rest of a Submission. Exit status 0."""
        own = {"address": self.submit, "command": command, "profile": self.size}
        return submission.submit(submission.Submission(**own, **about), store, console)


@dataclass(frozen=True, kw_only=True)
class StudyCommand(SweepCommand):
    """Options of every study. A study adds its `name`, its variants and the tables that it prints."""

    variants: tuple[str, ...]
    """Methods to compare, out of `bbqrec methods`."""
    out: Path
    """Folder of the tables and figures."""
    seeds: int = 1
    """Number of seeds: 0, 1, ..., SEEDS - 1."""
    tuned: str = str(TUNED)
    """Folder of the tuned configs (python sweeps/tuning.py), which apply between the profile and --set."""
    untuned: bool = False
    """Leave the tuned configs alone. So does an empty --tuned."""

    prints: ClassVar[tuple[str, ...]] = ()
    shows: ClassVar[tuple[str, ...]] = ()
    """The paper's tables and figures that the study makes; () for one that has an overview alone."""

    def options(self) -> dict[str, Any]:
        """Further options of the Study: what it varies, and what it needs no recommenders for."""
        return {}

    def _unshown(self) -> tuple[str, ...]:
        """The overview, if there is a method that none of the study's tables and figures has."""
        left = [method for method in self.variants if not set(METHODS[method].table) & set(self.shows)]
        return ("overview",) if left and self.shows else ()

    def run(self, console: Console, command: str) -> int:
        """Exit status: 0 with every cell done, 1 if one failed, 130 after an interrupt."""
        resources, trackers = self.resources(), self.trackers()
        study = Study(
            name=self.name,
            methods=self.variants,
            datasets=(Path(EMBEDDED),),
            seeds=self.seeds,
            profile=self.size,
            overrides=overrides(self.set),
            tuned=None if self.untuned or not self.tuned else tuned_folder(self.tuned),
            **self.options(),
        )
        store = self.opened()
        plan = replace(study, datasets=self.folders(store)).plan(store)
        console.print(plan.table())
        said = [plan.scope(), outlook(plan, store) if self.dry_run or store.is_local else ""]  # many reads, if remote
        console.print("\n".join(filter(None, said)), highlight=False, markup=False, soft_wrap=True)
        if self.dry_run:
            return 0
        if self.submit is not None and plan.missing:
            about = {"study": plan.key, "folders": plan.folders, "out": str(self.out)}
            return self.submitted(store, console, command, **about)
        ledger = launch(plan, store, resources, console=console, command=command, trackers=trackers)
        write_report(store, ledger.description(), self.out)
        for name in (*self.prints, *self._unshown()):
            console.print((self.out / f"{name}.md").read_text(), highlight=False, markup=False, soft_wrap=True)
        costs = sentence(load_rows(self.out, self.name), held=plan.done)
        console.print(costs, highlight=False, markup=False, soft_wrap=True)
        where = job.fetched() or f"{self.out.resolve()} (rows.csv names every run)"
        where = f"tables and figures of study {plan.key}: {where}"
        console.print(where, highlight=False, markup=False, soft_wrap=True)
        return _status(ledger)


def main(study: type[Command], args: Sequence[str] | None = None) -> int:
    """Run a command line; bad input ends in one line on stderr and exit status 2."""
    logging.basicConfig(format="%(levelname)s %(message)s", level=logging.WARNING, stream=sys.stdout)
    words = list(sys.argv[1:] if args is None else args)
    try:
        options = tyro.cli(study, args=completed(words))
        command = without_passwords(shlex.join(["python", file_of(study, study.name), *words]))
        with terminated_like_interrupted():
            return options.run(Console(), job.command() or command)
    except InputError as error:
        print("error:", " ".join(str(error).split()), file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted: run the same command again to go on", file=sys.stderr)
        return 130


def tuned_folder(folder: str) -> Path:
    """A --tuned folder. Raises InputError if it is not there; the default one need not be."""
    path = Path(folder).expanduser()
    if not path.is_dir() and path != TUNED:
        raise InputError(f"--tuned {folder} is no folder", "give one that sweeps/tuning.py wrote, or --untuned")
    return path


def embedded(store: Store) -> Path:
    """Folder of the embedded data set: in a local store, else in the user's cache.

    Generated if it is not there, and anew if other options or another version of the generator made what is there.
    """
    parent = Path(store.url) if store.is_local else Path("~/.cache/bbqrec").expanduser()
    folder, config = parent / "data" / EMBEDDED, SyntheticConfig()
    if not is_generated(folder, config):
        if (folder / "dataset.json").exists():
            log.warning("%s was made with other options or another version of the generator: generated anew", folder)
        prepare_synthetic(config, folder, EMBEDDED)
    return folder


def _status(ledger: Ledger) -> int:
    failed = [cell for cell in ledger.cells() if cell["status"] == "failed"]
    for cell in failed:
        where = f"{cell['dataset']} {cell['method']} seed {cell['seed']}"
        again = "" if cell["run_key"] in ledger.hopeless else "; the same command tries it again"
        print(f"failed: {where}: {cell['error']}{again}", file=sys.stderr)
    if not failed and not ledger.complete:
        raise KeyboardInterrupt
    return 1 if failed else 0
