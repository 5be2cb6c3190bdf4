"""What the next trial is and when one is stopped: pure functions of the trials before it, the seed and its number.

TPE (Optuna) suggests, ASHA or the median rule (Ray Tune) stops. Both are asked anew for every trial and told all that
is known, so that a tuning that was cut goes on as if it had not been, and trials that ran side by side do not depend on
who was faster.
"""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import accumulate
from types import SimpleNamespace
from typing import Any, Literal

import numpy as np
import optuna
from ray.tune.schedulers import AsyncHyperBandScheduler, MedianStoppingRule, TrialScheduler

from bbqrec.errors import InputError
from sweeps.search_spaces import Choices, Space

MEDIAN_OF = 3
"""Trials that the median needs."""
STARTUP = 5
"""Trials, the default among them, after which TPE takes over from chance."""


@dataclass(frozen=True, kw_only=True)
class Budget:
    """What every method gets: trials of so many epochs of stage 2, stopped by the same rule."""

    trials: int = 12
    epochs: int = 10
    grace: int = 2
    """Epochs before a trial may be stopped: the first rung. The next ones are `factor` times as far each."""
    factor: int = 3
    """A trial goes on at a rung if it is among the best 1 / `factor` of those that were there before."""
    stop: Literal["asha", "median", "none"] = "asha"
    """`median`: a trial ends, after `grace`, when its best score falls below the median of the others' averages so far,
    of which there must be MEDIAN_OF; `none`: every trial has all its epochs."""
    parallel: int = 1
    """Trials of a round, side by side. They know the rounds before, not each other."""
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (("trials", 1), ("epochs", 1), ("grace", 1), ("factor", 2), ("parallel", 1), ("seed", 0)):
            if getattr(self, name) < least:
                raise InputError(f"--{name} {getattr(self, name)} is too small", f"give {least} or more")
        if self.grace > self.epochs:
            raise InputError(f"--grace {self.grace} is longer than a trial", f"give at most {self.epochs}")

    @property
    def rungs(self) -> tuple[int, ...]:
        """The epochs after which ASHA compares trials."""
        rungs = [self.grace]
        while rungs[-1] * self.factor < self.epochs:
            rungs.append(rungs[-1] * self.factor)
        return tuple(rung for rung in rungs if rung < self.epochs)


@dataclass(frozen=True, kw_only=True)
class Trial:
    """A trial that is over. `scores` are the validation NDCG@10 of its epochs, `key` names its run."""

    number: int
    overrides: Mapping[str, Any]
    key: str
    scores: tuple[float, ...]
    end: Literal["finished", "stopped", "diverged"]

    @property
    def score(self) -> float | None:
        """The best epoch's, also of a trial that was stopped. None if it diverged: such a config is never chosen."""
        return None if self.end == "diverged" else max(self.scores)

    def described(self) -> dict[str, Any]:
        """As the file of a tuned config has it."""
        return {**asdict(self), "overrides": dict(self.overrides), "scores": list(self.scores), "score": self.score}


def suggestion(space: Space, told: Sequence[Trial], number: int, seed: int) -> dict[str, Any]:
    """Values for the space's fields, by TPE from the trials told so far."""
    mixed = int(np.random.SeedSequence((seed, number)).generate_state(1)[0])
    distributions = {path: _distribution(domain) for path, domain in space.items()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        sampler = optuna.samplers.TPESampler(multivariate=True, n_startup_trials=STARTUP, seed=mixed)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    for trial in told:
        study.add_trial(_frozen(trial, distributions))
    asked = study.ask(distributions)
    return {path: rounded(asked.params[path], domain) for path, domain in space.items()}


def stopped_at(before: Sequence[Sequence[float]], scores: Sequence[float], budget: Budget) -> int | None:
    """The epoch at which the budget's rule stops a trial; None as long as it goes on. `before`: of earlier rounds.

    ASHA compares the best score so far. Nothing is stopped at its last epoch.
    """
    if budget.stop == "none":
        return None
    scheduler = _scheduler(budget)
    for number, told in enumerate([*before, scores]):
        trial = _Told(str(number))
        scheduler.on_trial_add(None, trial)
        for epoch, score in enumerate(told if budget.stop == "median" else accumulate(told, max), start=1):
            result = {"epoch": epoch, "score": score}
            if budget.stop == "median" and number < len(before):  # taken in, but not judged again
                scheduler.on_trial_complete(_ALONE, trial, result)
                continue
            decision = scheduler.on_trial_result(_ALONE, trial, result)
            if number == len(before) and decision == TrialScheduler.STOP and epoch < budget.epochs:
                return epoch
    return None


@dataclass(frozen=True)
class _Told:
    """What Ray's schedulers need of a trial."""

    trial_id: str


_ALONE = SimpleNamespace(get_live_trials=list)
"""What they need of Tune: no trial waits for another's place."""


def _scheduler(budget: Budget) -> TrialScheduler:
    about: dict[str, Any] = {"time_attr": "epoch", "metric": "score", "mode": "max", "grace_period": budget.grace}
    if budget.stop == "median":
        return MedianStoppingRule(min_samples_required=MEDIAN_OF, **about)
    return AsyncHyperBandScheduler(max_t=budget.epochs, reduction_factor=budget.factor, **about)


def chosen(told: Sequence[Trial]) -> Trial | None:
    """The trial with the best validation score, the first of equal ones; None if all diverged."""
    alive = [trial for trial in told if trial.score is not None]
    return max(alive, key=lambda trial: (trial.score, -trial.number), default=None)


def _distribution(domain: Any) -> optuna.distributions.BaseDistribution:
    if isinstance(domain, Choices):
        return optuna.distributions.CategoricalDistribution(domain.values)
    return optuna.distributions.FloatDistribution(domain.low, domain.high, log=True)


def _frozen(trial: Trial, distributions: dict[str, optuna.distributions.BaseDistribution]) -> optuna.trial.FrozenTrial:
    """As Optuna knows it: of those stopped, the later ones are the better ones, and those that diverged the worst."""
    about: dict[str, Any] = {"params": dict(trial.overrides), "distributions": distributions}
    if trial.end == "finished":
        return optuna.trial.create_trial(value=trial.score, **about)
    reached = {len(trial.scores): trial.score} if trial.end == "stopped" else {}
    return optuna.trial.create_trial(state=optuna.trial.TrialState.PRUNED, intermediate_values=reached, **about)


def rounded(value: float, domain: Any) -> float:
    """Three significant digits are enough, and can be read."""
    if isinstance(domain, Choices):
        return value
    return min(max(float(f"{value:.3g}"), domain.low), domain.high)
