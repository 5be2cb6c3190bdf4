"""One run on several workers: a Tune trial that only waits, and beside it a group of processes that Ray Train starts.

The stages know the group as `bbqrec.distributed`. A worker that dies takes its group with it; the trial then fails like
any other and is tried again, by a new group, from the checkpoint in the store.
"""

import asyncio
import os
import tempfile
import uuid
from collections.abc import Mapping
from typing import Any

import ray.train
from ray import tune
from ray.train import RunConfig, ScalingConfig, WorkerGroupError
from ray.train.torch import TorchConfig, TorchTrainer, get_device
from ray.tune.experiment import Trial
from ray.tune.integration.ray_train import TuneReportCallback
from ray.util.placement_group import PlacementGroup, get_current_placement_group

from sweeps.node_checks import Check
from sweeps.study import Run
from sweeps.trainable import reports, train

DRIVER_CPUS = 0.001
"""What the waiting trial takes; Ray refuses 0."""
SPARED_CPUS = 0.01
"""Left over by each worker, so that a node full of workers has room for the trials that wait for them."""
SETTINGS = {
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.1",  # every report waits for the next look at the group: 2 s by default
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",  # a process more per run; a lost node costs an epoch anyway
}
"""Of Ray Train, unless the environment says otherwise."""
LOOK_SECONDS = 0.02
SIGNS_OF_LOSS = ("gloo", "nccl", "health check failed", "actor died")
"""In the message of a failure: a worker is gone, or cannot be reached any more."""


def workers_of(run: Run, asked: int) -> int:
    """Workers of a run when `asked` are wanted of each: 1 for what a batch cannot be shared out for."""
    return asked if run.stage != "quantizer" and run.config.recommender.shareable else 1


def trial_resources(config: dict[str, Any]) -> tune.PlacementGroupFactory:
    """What Tune reserves for a trial: all that its one worker needs; next to nothing if it starts a group."""
    if config["workers"] > 1:
        return tune.PlacementGroupFactory([{"CPU": DRIVER_CPUS}])
    return tune.PlacementGroupFactory([{"CPU": config["cpus"], "GPU": config["gpus"]}])


class Groups(tune.Callback):
    """What Tune does not see of the groups: they are let go on after each report, their places freed at the end.

    Without the first a group would train on while Tune decides to stop it. Ray frees places by itself if a trial ends
    in order, but not for sure if its process is stopped or killed: what it has for that case asks a Ray of this
    machine, which need not be this one. The next group would wait forever.
    """

    def __init__(self) -> None:
        self.name = f"bbqrec-groups-{uuid.uuid4().hex[:8]}"
        self.members = ray.remote(num_cpus=0)(Members).options(name=self.name).remote()
        self.told: dict[str, int] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune pickles its callbacks for a restore that is never used

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: Mapping[str, Any], **info: Any
    ) -> None:
        self.told[trial.trial_id] = result.get("epoch", 0)

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """Now what follows from the results is decided."""
        for trial in trials:
            if trial.trial_id in self.told and trial.status == Trial.RUNNING:
                self.members.allow.remote(trial.trial_id, self.told.pop(trial.trial_id))

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self.told.pop(trial.trial_id, None)
        place = ray.get(self.members.leave.remote(trial.trial_id))
        if place is not None:
            ray.util.remove_placement_group(place)

    on_trial_error = on_trial_recover = on_trial_complete


class Members:
    """An actor that groups and the study's driver both know: each group's place, and how far it may train."""

    def __init__(self) -> None:
        self.places: dict[str, PlacementGroup] = {}
        self.epochs: dict[str, int] = {}

    async def join(self, trial: str, place: PlacementGroup) -> None:
        """A group of this trial has begun, in what it has reserved."""
        self.places[trial], self.epochs[trial] = place, 0

    async def leave(self, trial: str) -> PlacementGroup | None:
        """The trial is over, for now at least. Its group's place, if it had one."""
        self.epochs.pop(trial, None)
        return self.places.pop(trial, None)

    async def allow(self, trial: str, epoch: int) -> None:
        """Tune has taken the report of this epoch, and the trial goes on."""
        if trial in self.epochs:
            self.epochs[trial] = epoch

    async def allowed(self, trial: str, epoch: int) -> bool:
        """Waits for Tune's word on this epoch. False if the trial is over."""
        while self.epochs.get(trial, epoch) < epoch:
            await asyncio.sleep(LOOK_SECONDS)
        return trial in self.epochs


def train_on_workers(config: dict[str, Any]) -> None:
    """The Tune function of any run: here if it has one worker, else by a group of them."""
    train_together(config) if config["workers"] > 1 else train(config)


def train_together(config: dict[str, Any]) -> None:
    """The Tune function of a run on several workers: starts them, passes on what worker 0 reports, and waits."""
    for name, value in SETTINGS.items():  # here, as another node's environment is not the driver's
        os.environ.setdefault(name, value)
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
        except WorkerGroupError as error:
            raise cause(error.worker_failures) from error


def cause(failures: Mapping[int, Exception]) -> Exception:
    """What to say of a group by its workers' failures: the first that is not about another worker that went away."""
    own = [failure for failure in failures.values() if not any(sign in str(failure).lower() for sign in SIGNS_OF_LOSS)]
    return own[0] if own else RuntimeError("one of its workers died (killed, out of memory, or the node was lost)")


def _work(config: dict[str, Any]) -> None:
    """What each worker does."""
    if "check" in config:
        Check(**config["check"]).look()
    trial, members = config["trial"], ray.get_actor(config["groups"])
    first = ray.train.get_context().get_world_rank() == 0
    if first:
        ray.get(members.join.remote(trial, get_current_placement_group()))
    for report in reports(config, trial, str(get_device())):
        ray.train.report(report)
        if first and "epoch" in report and not ray.get(members.allowed.remote(trial, report["epoch"])):
            return
