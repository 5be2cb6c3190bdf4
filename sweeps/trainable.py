"""One stage of one run as a Ray Tune trial: it consumes the stage's reports and passes them on, an epoch at a time.

The stage keeps its own checkpoints in the store, so a trial that is killed, or a later study, goes on from there.
"""

import importlib
import os
import uuid
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from ray import tune

from bbqrec import distributed
from bbqrec.data import load_dataset
from bbqrec.errors import Diverged, InputError
from bbqrec.methods import run_from_json
from bbqrec.native import keep_freed_memory
from bbqrec.run import RunConfig
from bbqrec.schema import Dataset, EpochReport
from bbqrec.store import Store
from sweeps import devices
from sweeps.metrics import RunMetrics
from sweeps.scores import SCORE
from sweeps.study import Run

HOPELESS = "hopeless"
"""A trial's last report if it failed in a way that another attempt would repeat: the error."""
NOTE = "note"
"""A report of no epoch, but of something that is to be said."""


def trial_config(
    run: Run,
    *,
    store: str,
    threads: int,
    study: str = "",
    stages: str = "bbqrec.stages",
    provenance: dict[str, Any] | None = None,
    workers: int = 1,
    cpus: float = 1.0,
    gpus: float = 0.0,
    groups: str = "",
) -> dict[str, Any]:
    """The trial of a run as plain JSON values. `stages` is the module with run_quantizer and run_recommender.

    `study` names the study in the metrics.

    `threads`, `cpus` and `gpus` are those of each of its `workers`, who tell `groups` what
    they have reserved.
    """
    return {
        "name": run.name,
        "stage": run.stage,
        "key": run.key,
        "method": run.method,
        "study": study,
        "run": run.config.described(),
        "folder": run.folder,
        "store": store,
        "threads": threads,
        "stages": stages,
        "provenance": provenance or {},
        "workers": workers,
        "cpus": cpus,
        "gpus": gpus,
        "groups": groups,
    }


def train(config: dict[str, Any]) -> None:
    """The Tune function of a run on one worker. See `trial_config`."""
    for report in reports(config, tune.get_context().get_trial_id(), devices.device()):
        tune.report(report)


def reports(config: dict[str, Any], trial: str, device: str) -> Iterator[dict[str, Any]]:
    """Computes and publishes the run of `config`, with a report after every epoch.

    The run's first worker also tells of it in its log, which Ray's dashboard shows, and in metrics.
    """
    if distributed.rank() > 0:
        yield from _computed(config, trial, device)
        return
    with RunMetrics(config) as metrics:
        for report in _computed(config, trial, device):
            print(in_words(config["name"], report), flush=True)
            if "epoch" in report:
                metrics.report(report)
            yield report


def _computed(config: dict[str, Any], trial: str, device: str) -> Iterator[dict[str, Any]]:
    torch.set_num_threads(config["threads"])
    keep_freed_memory()
    stages = importlib.import_module(config["stages"])
    run = run_from_json(config["run"])
    store = Store(config["store"])
    dataset = dataset_of(config["folder"], run.fingerprint, store.url)
    # A worker that was cut off may still be writing: its successor writes under another attempt.
    options: dict[str, Any] = {"attempt": f"{trial}-{uuid.uuid4().hex[:8]}", "device": device}
    options["provenance"] = config["provenance"]
    try:
        for report in _reports(stages, config["stage"], run, dataset, store, options):
            if isinstance(report, str):
                yield {NOTE: report}
                continue
            seen = {name: value for name, value in report.metrics.items() if not name.startswith("test")}
            yield {**seen, "stage": report.stage, "epoch": report.epoch, "epochs": report.epochs}
    except Diverged as error:
        yield {HOPELESS: str(error)}  # an exception would make Tune try again


def in_words(name: str, report: Mapping[str, Any]) -> str:
    """A report as a line of a log."""
    if "epoch" not in report:
        return f"{name}: {report.get(NOTE) or report[HOPELESS]}"
    losses = {"loss": report.get("loss", report.get("loss/total")), "validation NDCG@10": report.get(SCORE)}
    told = [f"epoch {report['epoch']}/{report['epochs']}"]
    told += [f"{what} {value:.4f}" for what, value in losses.items() if value is not None]
    told += [f"{report['seconds']:.1f} s"] if "seconds" in report else []
    return f"{name}: {', '.join(told)}"


def _reports(
    stages: ModuleType, stage: str, run: RunConfig, dataset: Dataset, store: Store, options: dict[str, Any]
) -> Iterator[EpochReport | str]:
    """The epochs of a stage; before them a note and those of the stage that it reads, if that one is damaged.

    The trial that made it is over, so this one makes it again. Others that need it do the same; the first one wins.
    """
    compute = stages.run_quantizer if stage == "quantizer" else stages.run_recommender
    own = options | ({"trial": True} if stage == "trial" else {})
    try:
        yield from compute(run, dataset, store, **own)
    except InputError as error:
        lost = None if isinstance(error, Diverged) else _lost(stage, run, store)
        if lost is None or distributed.world() > 1:  # a quantizer takes one worker: the next command makes it again
            raise
        yield f"{lost[0]} of this run damaged or removed ({error.what}): computing it again"
        yield from _reports(stages, *lost, dataset, store, options)
        yield from compute(run, dataset, store, **own)


def _lost(stage: str, run: RunConfig, store: Store) -> tuple[str, RunConfig] | None:
    """The stage that this one reads and the run that it is of, if the store does not hold it any more."""
    if stage != "quantizer":
        lost = run.quantizer_key is not None and not store.has("quantizer", run.quantizer_key)
        return ("quantizer", run) if lost else None
    if run.teacher is None or store.has("recommender", run.teacher.recommender_key):
        return None
    return "recommender", run.teacher


@lru_cache(maxsize=2)
def dataset_of(folder: str, fingerprint: str, store: str) -> Dataset:
    """The data set from its folder or, on a node that does not have it, from the copy in the store.

    Verified and then kept for the next trial of this process.
    """
    if (Path(folder) / "dataset.json").exists():
        found = load_dataset(folder)
        if found.fingerprint == fingerprint:
            return found
    copy = Store(store).get("dataset", fingerprint)
    if copy is None:
        raise InputError(
            f"{folder} on {os.uname().nodename} is not the data set {fingerprint[:12]}", "run the study again"
        )
    return load_dataset(copy)
