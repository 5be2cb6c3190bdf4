"""What both training loops share. A loop trains one epoch at a time and packs its whole state into bytes.

Every epoch seeds its own random numbers from (seed, epoch): a resumed run equals a straight one without a saved random
state.
"""

import math
from collections.abc import Mapping
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor


@runtime_checkable
class Trainer(Protocol):
    """What a stage needs of a loop: train the next epoch, stop, save and go on."""

    epoch: int

    def train_epoch(self) -> dict[str, float]: ...
    def finished(self) -> bool: ...
    def pack(self) -> bytes: ...
    def unpack(self, blob: bytes) -> None: ...


def epoch_generator(seed: int, epoch: int, worker: int = 0) -> torch.Generator:
    """Seeds torch's global numbers (dropout) for this epoch and returns a generator for everything drawn explicitly.

    Of several workers each has its own global numbers, and all have the same explicit ones.
    """
    mixed = _mixed(seed, epoch)
    torch.manual_seed(_mixed(seed, epoch, worker) if worker else mixed)
    return torch.Generator().manual_seed(mixed)


def _mixed(*numbers: int) -> int:
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> np.uint64(1))


def learning_rate(base: float, step: int, warmup: int, steps: int, decay: str) -> float:
    """Linear warm-up from 0, then constant or a half cosine down to 0 at the last step."""
    if step < warmup:
        return base * (step + 1) / warmup
    if decay == "constant":
        return base
    progress = (step - warmup) / max(steps - warmup, 1)
    return base * 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))


def require_finite(terms: Mapping[str, Tensor], epoch: int, step: int) -> None:
    """Raises FloatingPointError that names the term, the epoch and the step."""
    for name, value in terms.items():
        if not math.isfinite(value.item()):
            raise FloatingPointError(f"{name} is {value.item()} at epoch {epoch}, step {step}")


class Averages:
    """Means over the batches of an epoch; of a term that some batches lack, over those that have it."""

    def __init__(self) -> None:
        self.sums: dict[str, float] = {}
        self.weights: dict[str, float] = {}

    def add(self, values: Mapping[str, Tensor], weight: float) -> None:
        for name, value in values.items():
            self.sums[name] = self.sums.get(name, 0.0) + float(value) * weight
            self.weights[name] = self.weights.get(name, 0.0) + weight

    def means(self) -> dict[str, float]:
        return {name: value / self.weights[name] for name, value in self.sums.items()}
