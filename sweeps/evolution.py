"""A population under Ray Tune: its members as trials, the scheduler that replaces the worst, and what they report.

The members' checkpoints lie beside the store for as long as it takes. Tune's own restore loses trials, so it is not
used: what was interrupted starts again.
"""

import random
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow.fs
from fsspec.core import url_to_fs
from ray import tune
from ray.tune.schedulers import PopulationBasedTraining
from rich.console import Console

from bbqrec.errors import InputError
from bbqrec.files import Files
from bbqrec.run import RunConfig
from bbqrec.store import Store
from sweeps import out_of_memory
from sweeps.launch import RETRIES, Resources, fitting, opened, share_data
from sweeps.member import train
from sweeps.population import QUANTILE, Epoch, Population, PopulationBudget, Values, explored, in_words, seed_of
from sweeps.progress import duration, reason
from sweeps.search_spaces import Space
from sweeps.trackers import Trackers


def evolve(
    run: RunConfig,
    method: str,
    folder: Path,
    space: Space,
    start: list[dict[str, float]],
    budget: PopulationBudget,
    store: Store,
    resources: Resources,
    *,
    console: Console,
    trackers: Trackers | None = None,
) -> tuple[Population, str | None]:
    """The population after all its epochs, or as far as it came; and why it ended early, if a member failed for good.

    `start` are the first values of the members, `run` is what they have in common: its quantizer must be in the store.
    """
    with opened(store, resources, console) as guarded:
        share_data({run.fingerprint: str(folder)}, store, resources)
        cpus, gpus, _ = fitting(resources, budget.population, console)
        watch = Watch(Population(budget=budget), space, console)
        name = f"{run.dataset} {method}"
        param_space = {
            **identity(0, name, run),
            "values": tune.grid_search(start),
            "run": run.described(),
            "folder": str(folder),
            "store": store.url,
            "threads": max(1, int(cpus)),
        }
        place, attempt = Files(beside(store)), uuid.uuid4().hex
        system, path = url_to_fs(f"{place.url}/{attempt}")
        remote = None if place.is_local else pyarrow.fs.PyFileSystem(pyarrow.fs.FSSpecHandler(system))
        try:
            with out_of_memory.survived():
                tune.Tuner(
                    tune.with_resources(guarded(train), {"cpu": cpus, "gpu": gpus}),
                    param_space=param_space,
                    tune_config=tune.TuneConfig(
                        scheduler=Scheduler(space, budget, name, run),
                        reuse_actors=True,
                        trial_dirname_creator=lambda trial: f"member-{trial.trial_id}",
                    ),
                    run_config=tune.RunConfig(
                        name="members",
                        storage_path=path,
                        storage_filesystem=remote,
                        # One that waits for room may need a checkpoint of a member that is an interval ahead.
                        checkpoint_config=tune.CheckpointConfig(num_to_keep=budget.interval + 2),
                        failure_config=tune.FailureConfig(max_failures=RETRIES),
                        callbacks=[watch, *([] if trackers is None else trackers.callbacks("pbt"))],
                        stop=Stopper(watch, budget.epochs),
                        verbose=0,
                    ),
                ).fit()
        finally:
            _remove(place, attempt)
    return watch.population, watch.failed


def beside(store: Store) -> str:
    """Path or URL of the members' checkpoints: beside the store; in it if that is a whole bucket."""
    if store.is_local or "/" in store.url.partition("://")[2].rstrip("/"):
        return f"{store.url.rstrip('/')}.pbt"
    return f"{store.url.rstrip('/')}/.pbt"


def identity(member: int, name: str, run: RunConfig) -> dict[str, Any]:
    """What of a trial's config is the member's own, whosever weights and values it has; `key` is for the trackers."""
    return {"member": member, "name": f"{name} member {member}", "key": f"{run.recommender_key}-pbt-{member:04}"}


class Scheduler(PopulationBasedTraining):
    """Ray's, synchronous, with draws that follow from the seed and the epoch, whatever else the process draws.

    What it hands over is a member's whole config: each gets its own number back.
    """

    def __init__(self, space: Space, budget: PopulationBudget, name: str, run: RunConfig) -> None:
        self.space, self.budget, self.name, self.run = space, budget, name, run
        self.numbers: dict[str, int] = {}
        super().__init__(
            time_attr="epoch",
            metric="score",
            mode="max",
            perturbation_interval=budget.interval,
            quantile_fraction=QUANTILE,
            custom_explore_fn=self._explore,
            log_config=False,
            synch=True,
        )

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        """Also of a trial that is tried again, of which Ray forgets how far it was: it would compare it too early."""
        known = self._trial_state.get(trial)
        super().on_trial_add(tune_controller, trial)
        if known is not None:
            self._trial_state[trial] = known
        self.numbers.setdefault(trial.trial_id, len(self.numbers))
        self._restore_identity(trial)

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        before = random.getstate()
        random.seed(seed_of(self.budget.seed, result["epoch"]))
        try:
            return super().on_trial_result(tune_controller, trial, result)
        finally:
            random.setstate(before)
            for member in tune_controller.get_trials():
                self._restore_identity(member)

    def _explore(self, config: dict[str, Any]) -> dict[str, Any]:
        return {**config, "values": explored(config["values"], self.space, random.Random(random.getrandbits(64)))}

    def _restore_identity(self, trial: Any) -> None:
        number = self.numbers[trial.trial_id]
        if trial.config["member"] != number:
            trial.set_config({**trial.config, **identity(number, self.name, self.run)})


class Watch(tune.Callback):
    """Takes in what the members report, and says how far they are."""

    def __init__(self, population: Population, space: Space, console: Console) -> None:
        self.population, self.space, self.console = population, space, console
        self.failed: str | None = None
        self.started, self.told = time.monotonic(), set[int]()

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune pickles its callbacks for a restore that is never used

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: Mapping[str, Any], **info: Any
    ) -> None:
        if "epoch" not in result:
            return
        member, number = result["member"], result["epoch"]
        values: Values = {path: result[path] for path in self.space}
        donor = None if result["weights_of"] < 0 else result["weights_of"]
        epoch = Epoch(score=None if result["diverged"] else result["score"], values=values, weights_of=donor)
        before = self.population.epochs.get(member, {}).get(number - 1)
        self.population.add(member, number, epoch)
        if donor is not None and before is not None:
            self._say(f"member {member} took over member {donor} after epoch {number - 1}: {in_words(values)}")
        if result["diverged"] and (before is None or before.score is not None or donor is not None):
            self._say(f"member {member} diverged in epoch {number} with {in_words(values)}: {result['diverged']}")
        self._tell(number)

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._say(f"retrying {trial.config['name']}: {reason(trial)}")

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self.failed = f"{trial.config['name']}: {reason(trial)}"
        self._say(f"failed {self.failed}")

    def _tell(self, number: int) -> None:
        """A line for every epoch that all members have."""
        epochs = [epochs[number] for epochs in self.population.epochs.values() if number in epochs]
        budget = self.population.budget
        if len(epochs) == budget.population and number not in self.told:
            self.told.add(number)
            scores = [epoch.score for epoch in epochs if epoch.score is not None]
            shown = f"{max(scores):.4f}, lowest {min(scores):.4f}" if scores else "-, all diverged"
            self._say(f"epoch {number}/{budget.epochs}: best validation NDCG@10 {shown}")

    def _say(self, words: str) -> None:
        line = f"[{duration(time.monotonic() - self.started)}] {words}"
        self.console.print(line, highlight=False, markup=False, soft_wrap=True)


class Stopper(tune.Stopper):
    """A member stops after its last epoch, all of them when one has failed for good: the others would wait for it."""

    def __init__(self, watch: Watch, epochs: int) -> None:
        self.watch, self.epochs = watch, epochs

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return result.get("epoch", 0) >= self.epochs

    def stop_all(self) -> bool:
        return self.watch.failed is not None

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune pickles it for a restore that is never used


def _remove(place: Files, attempt: str) -> None:
    """The members' checkpoints, and their folder if no other population has any there."""
    try:
        place.remove(attempt)
        if place.is_local:
            Path(place.url).rmdir()
    except (InputError, OSError):
        pass  # what is left is small, and documented
