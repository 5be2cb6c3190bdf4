"""Learning curves for TensorBoard, MLflow and Weights & Biases, written by the driver as the runs report."""

import importlib.util
import json
import os
import re
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ray.tune import Callback
from tensorboardX import SummaryWriter

from bbqrec.errors import InputError
from bbqrec.files import one_line


@dataclass(frozen=True, kw_only=True)
class Trackers:
    """Where the curves go: `logs` is TensorBoard's folder and that of W&B's files; the others are asked for."""

    logs: Path
    mlflow: str | None = None
    """Tracking URI."""
    wandb: str | None = None
    """Project."""

    def __post_init__(self) -> None:
        for option, package in (("mlflow", "mlflow"), ("wandb", "wandb")):
            if getattr(self, option) and importlib.util.find_spec(package) is None:
                raise InputError(f"--{option} needs the package {package}", f"pip install 'bbqrec[{option}]'")
        offline = os.environ.get("WANDB_MODE") in ("offline", "disabled")
        netrc = Path(os.environ.get("NETRC") or "~/.netrc").expanduser()
        if self.wandb and not (offline or os.environ.get("WANDB_API_KEY") or netrc.exists()):
            raise InputError("--wandb has no WANDB_API_KEY", "set it, run `wandb login`, or set WANDB_MODE=offline")

    def callbacks(self, study: str) -> list[Callback]:
        """One for each tracker; the runs of a `study` are grouped under its name."""
        made: list[Callback] = [TensorBoard(self.logs / study)]
        if self.mlflow:
            made.append(_mlflow(self.mlflow, study))
        if self.wandb:
            made.append(_wandb(self.wandb, study, self.logs))
        return made


NAME_LENGTH = 150
"""Characters of a run's name in that of its folder, which file systems limit: settings of many fields are long."""


class TensorBoard(Callback):
    """A folder per run under `folder`: every number that a run reports, by epoch, and its config as text.

    A run that goes on after a fault goes on in its folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.writers: dict[str, SummaryWriter] = {}
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"cannot write {folder} ({error.strerror or error})", "give a writable --logs") from error

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune pickles its callbacks for a restore that is never used

    def on_trial_start(self, iteration: int, trials: Sequence[Any], trial: Any, **info: Any) -> None:
        config = trial.config
        folder = re.sub(r"[^\w.+=@-]+", "-", f"{config['name'][:NAME_LENGTH]}-{config['key'][-8:]}")
        self._close(config["key"])
        # The name of the file tells the second: two attempts in one second would be one file.
        suffix = f".{uuid.uuid4().hex[:8]}"
        writer = SummaryWriter(str(self.folder / folder), flush_secs=10, filename_suffix=suffix)
        writer.add_text("run", f"```\n{json.dumps({'key': config['key'], **config['run']}, indent=1)}\n```")
        self.writers[config["key"]] = writer

    def on_trial_result(
        self, iteration: int, trials: Sequence[Any], trial: Any, result: Mapping[str, Any], **info: Any
    ) -> None:
        writer = self.writers.get(trial.config["key"])
        if writer is not None and "epoch" in result:
            for name, value in reported(result).items():
                writer.add_scalar(f"{result['stage']}/{name}", value, result["epoch"])

    def on_trial_complete(self, iteration: int, trials: Sequence[Any], trial: Any, **info: Any) -> None:
        self._close(trial.config["key"])

    def on_trial_error(self, iteration: int, trials: Sequence[Any], trial: Any, **info: Any) -> None:
        self._close(trial.config["key"])

    def on_experiment_end(self, trials: Sequence[Any], **info: Any) -> None:
        for key in list(self.writers):
            self._close(key)

    def _close(self, key: str) -> None:
        if key in self.writers:
            self.writers.pop(key).close()


TUNES_OWN = ("epoch", "epochs", "iterations_since_restore", "training_iteration", "timestamp", "pid", "time_total_s")
"""Numbers in a result that are none of the run's metrics."""


def reported(result: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of a result that the run itself reported."""
    return {
        name: float(value)
        for name, value in result.items()
        if isinstance(value, int | float)
        and not isinstance(value, bool)
        and name not in TUNES_OWN
        and not name.startswith(("time_", "timesteps_"))
    }


def _mlflow(uri: str, study: str) -> Callback:
    from ray.air.integrations.mlflow import MLflowLoggerCallback

    class ByEpoch(MLflowLoggerCallback):
        """A run's step is its epoch, also after a fault."""

        def setup(self, *arguments: Any, **options: Any) -> None:
            try:
                super().setup(*arguments, **options)
            except Exception as error:  # of the client, the server or the database behind it
                what = f"MLflow cannot be used ({one_line(error)[:200]})"
                raise InputError(what, "check the URI of --mlflow, or leave it out") from error

        def log_trial_result(self, iteration: int, trial: Any, result: dict[str, Any]) -> None:
            if "epoch" in result:
                named = {name.replace("@", "_"): value for name, value in reported(result).items()}  # MLflow has no @
                super().log_trial_result(iteration, trial, named | _step(result))

    return ByEpoch(tracking_uri=uri, experiment_name=f"bbqrec/{study}")


def _wandb(project: str, study: str, logs: Path) -> Callback:
    from ray.air.integrations.wandb import WandbLoggerCallback

    class ByEpoch(WandbLoggerCallback):
        """Only what the run reports, and its epoch."""

        def log_trial_result(self, iteration: int, trial: Any, result: dict[str, Any]) -> None:
            if "epoch" in result:
                super().log_trial_result(iteration, trial, {"epoch": result["epoch"], **reported(result)})

    logs.mkdir(parents=True, exist_ok=True)
    return ByEpoch(project=project, group=study, dir=str(logs.resolve()))


def _step(result: Mapping[str, Any]) -> dict[str, int]:
    return {"timesteps_total": result["epoch"], "training_iteration": result["epoch"]}
