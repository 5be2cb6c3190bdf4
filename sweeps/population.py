"""Population-based training, but for Ray: what members start with, how values change, and what is told of it all."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from random import Random
from typing import Any

import numpy as np

from bbqrec.errors import InputError
from sweeps.search_spaces import Choices, LogUniform, Space
from sweeps.trials import rounded

Values = Mapping[str, float]
"""Dotted field -> what a member has for it."""

QUANTILE = 0.25
"""The worst quarter of the members, at least one, takes over the weights of the best quarter."""
RESAMPLE = 0.25
"""Chance that a value is drawn anew instead of moved."""
FACTORS = (0.8, 1.2)
"""What moves a value between bounds; among choices it moves to the next one."""


@dataclass(frozen=True, kw_only=True)
class PopulationBudget:
    """So many members of so many epochs, compared every `interval` epochs."""

    population: int
    epochs: int
    interval: int
    seed: int

    def __post_init__(self) -> None:
        for name, least in (("population", 2), ("epochs", 2), ("interval", 1), ("seed", 0)):
            if getattr(self, name) < least:
                raise InputError(f"--{name} {getattr(self, name)} is too small", f"give {least} or more")
        if self.interval >= self.epochs:
            raise InputError(f"--interval {self.interval} leaves nothing to train after it", "give less than --epochs")


@dataclass(frozen=True, kw_only=True)
class Epoch:
    """One epoch of a member. `score` is validation NDCG@10, None if the loss was not finite (any more).

    `weights_of` is the member whose weights it began with, None for its own.
    """

    score: float | None
    values: Values
    weights_of: int | None = None


@dataclass(kw_only=True)
class Population:
    """The epochs of all members so far, by member and epoch (from 1)."""

    budget: PopulationBudget
    epochs: dict[int, dict[int, Epoch]] = field(default_factory=dict)

    def add(self, member: int, number: int, epoch: Epoch) -> None:
        """An epoch that is told again, after a fault, replaces what was told."""
        self.epochs.setdefault(member, {})[number] = epoch

    @property
    def complete(self) -> bool:
        """Whether every member has all its epochs."""
        wanted = range(1, self.budget.epochs + 1)
        return all(set(wanted) <= set(self.epochs.get(member, {})) for member in range(self.budget.population))

    @property
    def best(self) -> tuple[int, int] | None:
        """Member and epoch with the best score, the earliest of equal ones; None if every epoch diverged."""
        found = [
            (epoch.score, -number, -member)
            for member, epochs in self.epochs.items()
            for number, epoch in epochs.items()
            if epoch.score is not None
        ]
        if not found:
            return None
        _, number, member = max(found)
        return -member, -number

    def schedule(self, member: int, number: int) -> list[dict[str, Any]]:
        """The epochs behind a member's weights after epoch `number`, from the first, whoever trained them."""
        found: list[dict[str, Any]] = []
        for at in range(number, 0, -1):
            epoch = self.epochs[member][at]
            found.append({"epoch": at, "member": member, "values": dict(epoch.values), "score": epoch.score})
            member = member if epoch.weights_of is None else epoch.weights_of
        return found[::-1]

    def exploits(self) -> list[dict[str, Any]]:
        """Who took over whose weights, after which epoch, and the values it had and goes on with."""
        return [
            {
                "after_epoch": number - 1,
                "member": member,
                "weights_of": epoch.weights_of,
                "before": dict(epochs[number - 1].values),
                "values": dict(epoch.values),
            }
            for number in range(2, self.budget.epochs + 1)
            for member, epochs in sorted(self.epochs.items())
            if (epoch := epochs.get(number)) is not None and epoch.weights_of is not None
        ]

    def curves(self) -> list[dict[str, Any]]:
        """Scores and values of every member, epoch by epoch."""
        return [
            {
                "member": member,
                "scores": [epoch.score for _, epoch in sorted(epochs.items())],
                "values": [dict(epoch.values) for _, epoch in sorted(epochs.items())],
            }
            for member, epochs in sorted(self.epochs.items())
        ]


def first_values(space: Space, start: Values, population: int, seed: int) -> list[dict[str, float]]:
    """What each member starts with: the first one with `start`, the others drawn by the seed."""
    draws = [Random(_mixed(seed, member)) for member in range(1, population)]
    return [dict(start), *({path: _drawn(domain, draw) for path, domain in space.items()} for draw in draws)]


def explored(values: Values, space: Space, draw: Random) -> dict[str, float]:
    """Values near those of a member that did well. They stay in the space."""
    return {path: _moved(values[path], domain, draw) for path, domain in space.items()}


def seed_of(seed: int, epoch: int) -> int:
    """For the draws after an epoch."""
    return _mixed(seed, 0, epoch)


def _drawn(domain: Choices | LogUniform, draw: Random) -> float:
    if isinstance(domain, Choices):
        return draw.choice(domain.values)
    return rounded(math.exp(draw.uniform(math.log(domain.low), math.log(domain.high))), domain)


def _moved(value: float, domain: Choices | LogUniform, draw: Random) -> float:
    if draw.random() < RESAMPLE or not domain.holds(value):
        return _drawn(domain, draw)
    if isinstance(domain, Choices):
        place = domain.values.index(value) + draw.choice((-1, 1))
        return domain.values[min(max(place, 0), len(domain.values) - 1)]
    return rounded(value * draw.choice(FACTORS), domain)


def _mixed(*numbers: int) -> int:
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])


def in_words(values: Values) -> str:
    """Values as they are printed."""
    return " ".join(f"{path}={value:g}" for path, value in values.items())
