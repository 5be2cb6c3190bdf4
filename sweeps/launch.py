"""Computes what a plan misses with Ray Tune, and keeps the study file in the store up to date."""

import contextlib
import math
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ray import tune
from rich.console import Console

from bbqrec.errors import InputError
from bbqrec.store import Store
from sweeps import capacity, connection, job, out_of_memory
from sweeps.gate import Gate
from sweeps.ledger import Ledger
from sweeps.naming import ACTOR, named
from sweeps.node_checks import checked
from sweeps.progress import Progress
from sweeps.study import Plan, Run
from sweeps.trackers import Trackers
from sweeps.trainable import trial_config
from sweeps.tuning_ledger import TuningLedger
from sweeps.workers import Groups, train_on_workers, trial_resources, workers_of

RETRIES = 2
"""Times that a failed run is tried again before it counts as failed."""


Guard = Callable[[Callable[[dict[str, Any]], None]], Callable[[dict[str, Any]], None]]


@dataclass(frozen=True, kw_only=True)
class Resources:
    """Where runs go and what each gets. None: chosen from the machines at hand."""

    cluster: str | None = None
    shared_store: bool = False
    gpus_per_run: float | None = None
    cpus_per_run: float | None = None
    max_concurrent: int | None = None
    workers_per_run: int = 1
    dashboard: bool = False

    def __post_init__(self) -> None:
        for name, least in (("gpus_per_run", 0), ("cpus_per_run", 0.01), ("max_concurrent", 1), ("workers_per_run", 1)):
            value = getattr(self, name)
            if value is not None and not math.isfinite(value):
                raise InputError(f"--{name.replace('_', '-')} {value} is not finite", f"give at least {least}")
            if value is not None and value < least:
                raise InputError(f"--{name.replace('_', '-')} {value} is too small", f"give at least {least}")
        each = (self.gpus_per_run or 0) / self.workers_per_run
        if each > 1 and each % 1:
            what = f"--gpus-per-run {self.gpus_per_run:g} of {self.workers_per_run} workers is {each:g} GPUs for each"
            raise InputError(what, "give each whole GPUs, or a part of one")


def launch(
    plan: Plan,
    store: Store,
    resources: Resources,
    *,
    console: Console,
    command: str = "",
    trackers: Trackers | None = None,
    stages: str = "bbqrec.stages",
) -> Ledger:
    """Runs what is missing (Ray does not even start if nothing is) and returns the ledger, written to the store.

    A killed driver loses nothing but the epoch at hand: plan and launch again. `stages` is for tests.
    """
    ledger = Ledger(plan, store, command)
    compute(ledger, resources, console=console, trackers=trackers, stages=stages)
    return ledger


def compute(
    ledger: Ledger | TuningLedger,
    resources: Resources,
    *,
    console: Console,
    trackers: Trackers | None = None,
    stages: str = "bbqrec.stages",
    stopper: tune.Stopper | None = None,
) -> None:
    """Runs what a ledger hands out, until nothing is missing, and has it write its files."""
    store = ledger.store
    if ledger.missing:
        with opened(store, resources, console) as guarded:
            share_data(ledger.folders, store, resources)
            _run(ledger, resources, console, trackers, stages, stopper, guarded)
    ledger.write(final=True)


def _run(
    ledger: Ledger | TuningLedger,
    resources: Resources,
    console: Console,
    trackers: Trackers | None,
    stages: str,
    stopper: tune.Stopper | None,
    guarded: Guard,
) -> None:
    workers = resources.workers_per_run
    cpus, gpus, slots = fitting(resources, ledger.side_by_side, console)
    ledger.write()  # not before: a study that fits nowhere is none
    # A cluster may grow when it sees trials waiting; a single machine does not.
    concurrency = resources.max_concurrent or (slots if resources.cluster is None and workers == 1 else None)
    places = max(slots, 1) * workers if workers > 1 else None
    groups = Groups() if workers > 1 else None
    # Workers of a cluster have the packages without the checkout, and do not see their share of a GPU.
    provenance = {**job.source(), "cpus": cpus, "gpus": gpus}

    def describe(run: Run) -> dict[str, Any]:
        about = {"study": ledger.name, "store": ledger.store.url, "stages": stages, "provenance": provenance}
        each = {"workers": workers_of(run, workers), "threads": max(1, int(cpus)), "cpus": cpus, "gpus": gpus}
        return trial_config(run, **about, **each, groups=groups.name if groups else "")

    tracked = [] if trackers is None else trackers.callbacks(ledger.name)
    logs = Path(tempfile.mkdtemp(prefix="bbqrec-sweep-"))
    with Progress(ledger, console, max(slots, 1)) as progress, out_of_memory.survived():
        tune.Tuner(
            named(guarded(train_on_workers), trial_resources, ACTOR, f"runs of {ledger.name}"),
            tune_config=tune.TuneConfig(
                search_alg=Gate(ledger, describe, concurrency, places),
                num_samples=ledger.limit,
                reuse_actors=workers == 1,  # a trial that waits for a group cannot be stopped but by ending its process
                trial_name_creator=lambda trial: trial.config["name"],
                trial_dirname_creator=lambda trial: f"{trial.config['stage']}-{trial.config['key']}",
            ),
            run_config=tune.RunConfig(
                name=ledger.name,
                storage_path=str(logs),
                failure_config=tune.FailureConfig(max_failures=RETRIES),
                callbacks=[progress, *([groups] if groups else []), *tracked],
                stop=stopper,
                log_to_file=True,
                verbose=0,
            ),
        ).fit()
    if ledger.errors:
        console.print(f"logs of the failed runs: {logs}", highlight=False, markup=False, soft_wrap=True)
    else:
        shutil.rmtree(logs, ignore_errors=True)


@contextlib.contextmanager
def opened(store: Store, resources: Resources, console: Console) -> Iterator[Guard]:
    """Ray for the time of the block, of a cluster whose nodes can all take part. What it yields makes a Tune function
    one that looks at nodes that join later."""
    with connection.session(resources.cluster, dashboard=resources.dashboard) as dashboard:
        if dashboard:
            where = "" if resources.cluster is None else ", on the head"
            console.print(f"Ray's dashboard{where}: {dashboard}", highlight=False, markup=False, soft_wrap=True)
        if resources.cluster is None:
            yield lambda train: train
            return
        with checked(store, resources.shared_store) as check:
            yield check.guarded


def share_data(folders: Mapping[str, str], store: Store, resources: Resources) -> None:
    """Copies data sets (fingerprint -> folder) to the store, for nodes of a cluster that do not see their folders."""
    if resources.cluster is not None and (resources.shared_store or not store.is_local):
        for fingerprint, folder in folders.items():
            store.publish("dataset", fingerprint, Path(folder), attempt="driver")


def fitting(resources: Resources, runs: int, console: Console) -> tuple[float, float, int]:
    """What `allot` gives each of the `runs` on the Ray at hand. Raises InputError if none fits and none ever will."""
    workers, present = resources.workers_per_run, capacity.machines()
    coming = [] if resources.cluster is None else capacity.to_come()
    cpus, gpus, slots = allot(resources, present, runs, coming)
    if slots < 1:
        what = f"a run of {cpus:g} CPUs and {gpus:g} GPUs fits on no node"
        if workers > 1:
            what = f"a run of {workers} workers of {cpus:g} CPUs and {gpus:g} GPUs each does not fit"
        if resources.cluster is None:
            raise InputError(what, "lower --cpus-per-run or --gpus-per-run")
        console.print(f"{what}: waiting for the cluster to grow")
    if resources.cluster is not None:
        each = f"{capacity.counted(cpus, 'CPU')} and {capacity.counted(gpus, 'GPU')}"
        each = f"{workers} workers of {each}" if workers > 1 else each
        said = f"cluster of {capacity.in_words(present)}: a run gets {each}, {slots} side by side"
        if resources.gpus_per_run is None and not gpus:
            said += "; no GPU is there (--gpus-per-run 1 would wait for one)"
        console.print(said, highlight=False, markup=False, soft_wrap=True)
    return cpus, gpus, slots


def allot(
    resources: Resources,
    machines: Sequence[capacity.Machine],
    runs: int,
    coming: Sequence[capacity.Machine] = (),
) -> tuple[float, float, int]:
    """CPUs and GPUs of a run's worker, and how many of the plan's `runs` fit side by side on the machines, of which
    further kinds may be `coming`.

    From the whole plan, not from what is missing: a study that goes on computes with as many threads as before. The
    workers of a run need not be on one machine.
    """
    workers = resources.workers_per_run
    given = [None if each is None else each / workers for each in (resources.gpus_per_run, resources.cpus_per_run)]
    cpus, gpus = capacity.shared_out([*machines, *coming], machines, runs * workers, *given)
    slots = capacity.slots(machines, cpus, gpus) // workers
    return cpus, gpus, min(slots, resources.max_concurrent or slots)
