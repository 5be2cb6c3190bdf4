"""One stage of one run as a Ray Tune trial: it consumes the stage's reports and passes them on, an epoch at a time.

The stage keeps its own checkpoints in the store, so a trial that is killed, or a later study, goes on from there.
"""

import importlib
import os
import uuid
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import ray
import torch
from ray import tune

from bbqrec.data import load_dataset
from bbqrec.errors import Diverged, InputError
from bbqrec.methods import run_from_json
from bbqrec.native import keep_freed_memory
from bbqrec.schema import Dataset
from bbqrec.store import Store
from sweeps.study import Run

HOPELESS = "hopeless"
"""A trial's last report if it failed in a way that another attempt would repeat: the error."""


def trial_config(
    run: Run,
    *,
    store: str,
    threads: int,
    stages: str = "bbqrec.stages",
    provenance: dict[str, Any] | None = None,
    workers: int = 1,
    cpus: float = 1.0,
    gpus: float = 0.0,
    groups: str = "",
) -> dict[str, Any]:
    """The trial of a run as plain JSON values. `stages` is the module with run_quantizer and run_recommender.

    `threads`, `cpus` and `gpus` are those of each of its `workers`, who tell `groups` what
    they have reserved.
    """
    return {
        "name": run.name,
        "stage": run.stage,
        "key": run.key,
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
    device = "cuda" if ray.get_gpu_ids() and torch.cuda.is_available() else "cpu"
    for report in reports(config, tune.get_context().get_trial_id(), device):
        tune.report(report)


def reports(config: dict[str, Any], trial: str, device: str) -> Iterator[dict[str, Any]]:
    """Computes and publishes the run of `config`, with a report after every epoch."""
    torch.set_num_threads(config["threads"])
    keep_freed_memory()
    stages = importlib.import_module(config["stages"])
    run = run_from_json(config["run"])
    store = Store(config["store"])
    dataset = _dataset(config["folder"], run.fingerprint, store.url)
    # A worker that was cut off may still be writing: its successor writes under another attempt.
    options: dict[str, Any] = {"attempt": f"{trial}-{uuid.uuid4().hex[:8]}", "device": device}
    options["provenance"] = config["provenance"]
    compute = stages.run_quantizer if config["stage"] == "quantizer" else stages.run_recommender
    options |= {"trial": True} if config["stage"] == "trial" else {}
    try:
        for report in compute(run, dataset, store, **options):
            seen = {name: value for name, value in report.metrics.items() if not name.startswith("test")}
            yield {**seen, "stage": report.stage, "epoch": report.epoch, "epochs": report.epochs}
    except Diverged as error:
        yield {HOPELESS: str(error)}  # an exception would make Tune try again


@lru_cache(maxsize=2)
def _dataset(folder: str, fingerprint: str, store: str) -> Dataset:
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
