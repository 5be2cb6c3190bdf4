"""The trials of one method on one data set: told ones, those at hand, and the one that is chosen in the end."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from bbqrec.errors import InputError
from bbqrec.methods import METHODS, run_config
from bbqrec.run import RunConfig
from bbqrec.schema import Dataset
from bbqrec.store import Store
from sweeps.scores import Curve, known_curve
from sweeps.search_spaces import Choices, default, space_of
from sweeps.study import Run, stage_runs
from sweeps.trials import Budget, Trial, chosen, stopped_at, suggestion
from sweeps.tuned import tuned_for


@dataclass(frozen=True, kw_only=True)
class AtHand:
    """A trial that is not over: its values, the runs that it consists of (the trial last), its curve so far.

    `before` are the scores of the trials of earlier rounds, with which it is compared.
    """

    overrides: Mapping[str, Any]
    chain: tuple[Run, ...]
    before: tuple[tuple[float, ...], ...]
    curve: Curve

    @property
    def run(self) -> Run:
        """The one that trains stage 2."""
        return self.chain[-1]

    @property
    def store_key(self) -> str:
        """Under which the store knows it."""
        return self.run.config.recommender_key

    def stopped_at(self, scores: tuple[float, ...], budget: Budget) -> int | None:
        """The epoch at which the trial is stopped with these scores, None if it goes on."""
        return stopped_at(self.before, scores, budget)


class Series:
    """Suggests, round after round, what to try next. Trial 0 is the default: profile and `overrides`, the user's.

    Varied are the `fields` of the method's space, or all. `points` are values that are tried next, each once, before
    anything is suggested. `tuned` is the folder with the tuned configs, from which a teacher takes its own; `after` is
    the teacher's series, if it is tuned as well. Raises InputError for overrides that do not go with every value of the
    space, for points outside it, and where nothing is left to vary.
    """

    def __init__(
        self,
        *,
        method: str,
        dataset: Dataset,
        folder: Path,
        profile: str,
        overrides: Mapping[str, Any],
        budget: Budget,
        tuned: Path,
        fields: Sequence[str] = (),
        points: Sequence[Mapping[str, Any]] = (),
        after: "Series | None" = None,
    ) -> None:
        self.method, self.dataset, self.folder, self.profile = method, dataset, folder, profile
        self.overrides, self.budget, self.tuned, self.after = overrides, budget, tuned, after
        self.name = f"{dataset.name} {method}"
        start = self.run_of({})
        whole = space_of(method, start, overrides)
        self.space = {path: domain for path, domain in whole.items() if not fields or path in fields}
        if not self.space:
            raise InputError(f"nothing of {method} is left to vary", "give other --fields, or less by --set")
        self.default = {path: default(start, path) for path in self.space}
        for path, domain in self.space.items():
            for value in domain.values if isinstance(domain, Choices) else (domain.low, domain.high):
                self.run_of({path: value})  # what the user's overrides rule out is found out now
        within = [self._within(point) for point in points]
        self.points = [p for number, p in enumerate(within) if p not in (self.default, *within[:number])]
        self.told: dict[int, Trial] = {}
        self.at_hand: dict[int, AtHand] = {}
        self.failed: str | None = None

    @property
    def complete(self) -> bool:
        return len(self.told) == self.budget.trials

    @property
    def over(self) -> bool:
        """Whether no trial will follow."""
        return self.complete or self.failed is not None

    @property
    def trials(self) -> list[Trial]:
        """Those told, in order."""
        return [self.told[number] for number in sorted(self.told)]

    @property
    def chosen(self) -> Trial | None:
        """The best trial, once all are told."""
        return chosen(self.trials) if self.complete else None

    def run_of(self, values: Mapping[str, Any]) -> RunConfig:
        """The run of a trial. Its teacher is that of a study: with its own tuned config and all its epochs."""
        teacher, taught = METHODS[self.method].teacher, {}
        if teacher and self.after:
            taught = {teacher: self.after.chosen.overrides} if self.after.chosen else {}
        elif teacher:
            taught = dict(tuned_for(self.tuned, teacher, self.dataset, self.profile).overrides)
        tried = {**values, "recommender.epochs": self.budget.epochs}
        about = (self.dataset, self.budget.seed, self.profile, self.overrides)
        return run_config(self.method, *about, {**taught, self.method: tried})

    def advance(self, store: Store) -> None:
        """Tells what the store knows, round after round, until there is something to compute."""
        if self.after and self.after.failed is not None and not self.over:
            self.failed = f"{self.after.name}, its teacher, failed"
        while not self.over and (self.after is None or self.after.complete):
            if not self.at_hand:
                first, told = len(self.told), self.trials
                for number in range(first, min(first + self.budget.parallel, self.budget.trials)):
                    self.at_hand[number] = self._take_up(number, told, store)
            for number, trial in list(self.at_hand.items()):
                self.tell(number, trial.curve)
            if self.at_hand:
                return

    def tell(self, number: int, curve: Curve) -> None:
        """What is known of a trial at hand now. With that it may be over: stopped, finished or diverged."""
        trial = self.at_hand[number]
        stop = trial.stopped_at(curve.scores, self.budget)
        if stop is None and not curve.ended:
            self.at_hand[number] = replace(trial, curve=curve)
            return
        end = "stopped" if stop is not None else "finished" if curve.error is None else "diverged"
        del self.at_hand[number]
        self.told[number] = Trial(
            number=number, overrides=trial.overrides, key=trial.store_key, scores=curve.scores[:stop], end=end
        )

    def described(self) -> dict[str, Any]:
        """The file of the chosen config, as far as it follows from the trials."""
        best = self.chosen
        assert best is not None, self.name
        budget = asdict(self.budget)
        return {
            "method": self.method,
            "dataset": self.dataset.name,
            "fingerprint": self.dataset.fingerprint,
            "profile": self.profile,
            "overrides": dict(best.overrides),
            "trial": best.number,
            "score": best.score,
            "default_score": self.told[0].score,
            "seed_points": [dict(point) for point in self.points],
            "set": dict(self.overrides),
            "seed": budget.pop("seed"),
            "budget": budget,
            "space": {path: asdict(domain) for path, domain in self.space.items()},
            "trials": [trial.described() for trial in self.trials],
        }

    def _within(self, point: Mapping[str, Any]) -> dict[str, Any]:
        """A seed point as values of the space: its fields are the space's, the others keep their default."""
        for path, value in point.items():
            domain = self.space.get(path)
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if domain is not None and not (number and domain.holds(value)):
                raise InputError(f"seed point {path}={value} is not in {self.method}'s space", "leave the file out")
        return {path: point.get(path, value) for path, value in self.default.items()}

    def _take_up(self, number: int, told: list[Trial], store: Store) -> AtHand:
        first = [self.default, *self.points]
        values = first[number] if number < len(first) else suggestion(self.space, told, number, self.budget.seed)
        run = self.run_of(values)
        name = f"{self.name} trial {number}"
        runs = stage_runs(run, self.method, str(self.folder))
        own = [replace(r, name=f"{name} {r.stage}") if r.config == run else r for r in runs]
        # A teacher may be the same run, but judged: the trial's identifier is another.
        last = replace(own[-1], stage="trial", key=f"trial-{run.recommender_key}", name=name)
        return AtHand(
            overrides=values,
            chain=(*own[:-1], last),
            before=tuple(trial.scores for trial in told),
            curve=known_curve(store, run.recommender_key),
        )
