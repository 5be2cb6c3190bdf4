"""What tuning varies of each method, as data. Every value that a profile sets is added to the space: see `space_of`.

A trial whose quantizer fields are new trains a new quantizer, so those are choices among few values: trials that agree
on them share one.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from bbqrec.methods import METHODS, has_field
from bbqrec.run import RunConfig


@dataclass(frozen=True)
class Choices:
    """One out of these values, which rise."""

    values: tuple[float, ...]

    def holds(self, value: float) -> bool:
        return value in self.values


@dataclass(frozen=True)
class LogUniform:
    """Any value between, as likely by its order of magnitude as another."""

    low: float
    high: float

    def holds(self, value: float) -> bool:
        return self.low <= value <= self.high


Space = Mapping[str, Choices | LogUniform]
"""Dotted field -> what it may be."""

GENERATOR: Space = {
    "recommender.learning_rate": LogUniform(3e-4, 3e-3),
    "recommender.dropout": Choices((0.1, 0.2, 0.3)),
    "recommender.encoder_layers": Choices((1, 2)),
    "quantizer.learning_rate": Choices((5e-4, 1e-3, 2e-3)),
}

SPACES: Mapping[str, Space] = {
    "items": {
        "recommender.learning_rate": LogUniform(3e-4, 5e-3),
        "recommender.dropout": Choices((0.1, 0.2, 0.3, 0.4, 0.5)),
        "recommender.d_model": Choices((32, 64, 96, 128, 256)),
        "recommender.layers": Choices((1, 2, 3)),
        "recommender.weight_decay": Choices((0.0, 0.01, 0.1)),
        "recommender.batch_size": Choices((64, 128, 256, 512)),
    },
    "generators": GENERATOR,
    "bbqrec": {**GENERATOR, "quantizer.beta": Choices((0.5, 1.0, 2.0)), "quantizer.gamma": Choices((0.3, 1.0, 3.0))},
    "tiger": {**GENERATOR, "quantizer.beta": Choices((0.5, 1.0, 2.0))},
}
"""By method; `items` and `generators` are the families, for every method without a space of its own. A method that does
not have one of the fields goes without it."""

PERTURBABLE = ("recommender.learning_rate", "recommender.weight_decay", "recommender.dropout")
"""Fields that may change while stage 2 trains: weights keep their shapes, batches and steps their number."""

TUNABLE = tuple(name for name, method in METHODS.items() if "Table 2" in method.table and "/" not in name)
"""The methods of Table 2. A variant such as bbqrec/no-mim is not tuned: it takes the full model's config."""


def space_for(method: str) -> Space:
    """The method's own space, or that of its family."""
    space = SPACES.get(method) or SPACES["items" if METHODS[method].quantizer is None else "generators"]
    return {path: domain for path, domain in space.items() if has_field(method, path)}


def space_of(method: str, run: RunConfig, fixed: Mapping[str, Any]) -> Space:
    """The space around a run, the method's default: without `fixed` fields, and with the default among its values."""
    return {path: _with(domain, default(run, path)) for path, domain in space_for(method).items() if path not in fixed}


def perturbable(space: Space) -> Space:
    """What of a space population-based training may vary."""
    return {path: domain for path, domain in space.items() if path in PERTURBABLE}


def default(run: RunConfig, path: str) -> Any:
    """The value of a dotted field of a run."""
    stage, _, name = path.partition(".")
    return getattr(getattr(run, stage), name)


def _with(domain: Choices | LogUniform, value: float) -> Choices | LogUniform:
    if isinstance(domain, Choices):
        return Choices(tuple(sorted({*domain.values, value})))
    return replace(domain, low=min(domain.low, value), high=max(domain.high, value))
