"""One run on several workers: a Tune trial that only waits, and beside it a group of processes that Ray Train starts.

The stages know the group as `bbqrec.distributed`. A worker that dies takes its group with it; the trial then fails like
any other and is tried again, by a new group, from the checkpoint in the store.
"""

import os
import tempfile
from typing import Any

import ray.train
from ray import tune
from ray.train import RunConfig, ScalingConfig, TrainingFailedError
from ray.train.torch import TorchConfig, TorchTrainer, get_device
from ray.tune.integration.ray_train import TuneReportCallback

from sweeps.study import Run
from sweeps.trainable import reports, train

DRIVER_CPUS = 0.001
"""What the waiting trial takes; Ray refuses 0."""
SPARED_CPUS = 0.01
"""Left over by each worker, so that a node full of workers has room for the trials that wait for them."""
POLLING_SECONDS = "0.1"
"""Of the group's state. Every report waits for the next look: 2 s by default."""


def workers_of(run: Run, asked: int) -> int:
    """Workers of a run when `asked` are wanted of each: 1 for what a batch cannot be shared out for."""
    return asked if run.stage != "quantizer" and run.config.recommender.shareable else 1


def trial_resources(config: dict[str, Any]) -> tune.PlacementGroupFactory:
    """What Tune reserves for a trial: all that its one worker needs; next to nothing if it starts a group."""
    if config["workers"] > 1:
        return tune.PlacementGroupFactory([{"CPU": DRIVER_CPUS}])
    return tune.PlacementGroupFactory([{"CPU": config["cpus"], "GPU": config["gpus"]}])


def train_on_workers(config: dict[str, Any]) -> None:
    """The Tune function of any run: here if it has one worker, else by a group of them."""
    train_together(config) if config["workers"] > 1 else train(config)


def train_together(config: dict[str, Any]) -> None:
    """The Tune function of a run on several workers: starts them, passes on what worker 0 reports, and waits."""
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", POLLING_SECONDS)
    trial = tune.get_context().get_trial_id()
    gpus = config["gpus"]
    each = {"CPU": max(config["cpus"] - SPARED_CPUS, SPARED_CPUS)} | ({"GPU": gpus} if gpus else {})
    with tempfile.TemporaryDirectory(prefix="bbqrec-group-") as folder:
        trainer = TorchTrainer(
            _work,
            train_loop_config={**config, "trial": trial},
            # NCCL refuses two workers on one GPU.
            torch_config=TorchConfig(backend="cpu:gloo,cuda:nccl" if gpus >= 1 else "gloo"),
            scaling_config=ScalingConfig(num_workers=config["workers"], use_gpu=gpus > 0, resources_per_worker=each),
            run_config=RunConfig(name=trial, storage_path=folder, callbacks=[TuneReportCallback()]),
        )
        try:
            trainer.fit()
        except TrainingFailedError as error:
            failures = getattr(error, "worker_failures", {})
            for failure in failures.values():
                raise failure from None
            raise


def _work(config: dict[str, Any]) -> None:
    """What each worker does."""
    device = get_device()
    for report in reports(config, config["trial"], str(device)):
        ray.train.report(report)
