"""The canonical data set in use: the leave-one-out split, training windows and length-bucketed batches."""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from bbqrec.datasets.canonical import MIN_ITEMS, load_dataset, save_dataset, statistics
from bbqrec.errors import InputError
from bbqrec.schema import PAD, Dataset

__all__ = [
    "Batch",
    "EvaluationPart",
    "Sequences",
    "Windows",
    "batches",
    "evaluation_part",
    "load_dataset",
    "require_targets",
    "save_dataset",
    "statistics",
    "training_part",
    "training_windows",
]


@dataclass(frozen=True, kw_only=True)
class Sequences:
    """Flat histories: row b is `items[offsets[b]:offsets[b + 1]]`, oldest first."""

    offsets: Int[np.ndarray, "B1"]
    items: Int[np.ndarray, "n"]

    @property
    def lengths(self) -> Int[np.ndarray, "B"]:
        return np.diff(self.offsets)


@dataclass(frozen=True, kw_only=True)
class EvaluationPart:
    """One row per user: the history that the model may see and the one item it has to find."""

    histories: Sequences
    targets: Int[np.ndarray, "U"]


@dataclass(frozen=True, kw_only=True)
class Windows:
    """Training rows: position t predicts `items[:, t + 1]` from `items[:, :t + 1]` where `counted[:, t]`."""

    items: Int[np.ndarray, "W T1"]
    counted: Bool[np.ndarray, "W T"]


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Histories and their targets: target s of a row is predicted from the row's first `visible[s]` items.

    `visible` 0 marks a target that does not count. A prefix example has S = 1; a packed history has a target behind
    every item.
    """

    history: Int[Tensor, "B T"]
    target: Int[Tensor, "B S"]
    visible: Int[Tensor, "B S"]


def training_part(dataset: Dataset) -> Sequences:
    """Every user's items but the last two, which are the targets of validation and test."""
    return _cut(dataset, 2, None)


def require_targets(dataset: Dataset) -> None:
    """Raises InputError if no user has an item to train on that follows another one."""
    if np.diff(dataset.offsets).max() <= MIN_ITEMS:
        found = f"every user has {MIN_ITEMS} items, of which 2 are held out"
        raise InputError(
            f"data set {dataset.name} has nothing to learn from: {found}",
            f"give users of {MIN_ITEMS + 1} items or more",
        )


def evaluation_part(
    dataset: Dataset, split: Literal["valid", "test"], max_history: int | None = None
) -> EvaluationPart:
    """Leave-one-out: the target is the last item but one (valid) or the last (test), the history all before it.

    Of a history the last `max_history` items are kept; None keeps all.
    """
    back = {"valid": 2, "test": 1}[split]
    targets = dataset.items[dataset.offsets[1:] - back]
    return EvaluationPart(histories=_cut(dataset, back, max_history), targets=targets)


def training_windows(dataset: Dataset, max_history: int) -> Windows:
    """Every training target once, as the rows (W, max_history + 1) of Windows, `PAD` on the right.

    A user with more items than fit gets further windows, the last of them flush with the end. They overlap so far that
    each counted target of theirs has at least max_history // 2 items before it. A single training item makes no window.
    """
    sequences = training_part(dataset)
    lengths, starts = sequences.lengths, sequences.offsets[:-1]
    stride = max_history + 1 - max(max_history // 2, 1)
    beyond = np.maximum(lengths - max_history - 1, 0)
    windows = np.where(lengths > 1, 1 + -(-beyond // stride), 0)
    user = np.repeat(np.arange(len(lengths)), windows)
    number = np.arange(len(user)) - np.repeat(np.cumsum(windows) - windows, windows)
    first = np.minimum(number * stride, beyond[user])
    seen = np.where(number > 0, (number - 1) * stride + max_history + 1, 1)  # targets before this one are counted
    place = first[:, None] + np.arange(max_history + 1)
    inside = place < lengths[user][:, None]
    items = np.where(inside, sequences.items[np.where(inside, starts[user][:, None] + place, 0)], PAD)
    return Windows(items=items, counted=inside[:, 1:] & (place[:, 1:] >= seen[:, None]))


def batches(
    lengths: Int[np.ndarray, "B"], batch_size: int, generator: torch.Generator | None
) -> list[Int[np.ndarray, "_"]]:
    """Row indices of batches of similar lengths, each row once; sizes differ by at most one, so all weigh the same.

    With a generator rows of equal length and the order of the batches are shuffled; None is deterministic.
    """
    rows = len(lengths)
    if rows == 0:
        return []
    mixed = np.arange(rows) if generator is None else torch.randperm(rows, generator=generator).numpy()
    order = mixed[np.argsort(np.asarray(lengths)[mixed], kind="stable")]
    cut = np.array_split(order, math.ceil(rows / batch_size))
    return cut if generator is None else [cut[i] for i in torch.randperm(len(cut), generator=generator).tolist()]


def _cut(dataset: Dataset, back: int, max_history: int | None) -> Sequences:
    """Every user's items without the last `back`, and of these the last `max_history`."""
    ends = dataset.offsets[1:] - back
    starts = dataset.offsets[:-1] if max_history is None else np.maximum(dataset.offsets[:-1], ends - max_history)
    lengths = ends - starts
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    place = np.arange(offsets[-1]) + np.repeat(starts - offsets[:-1], lengths)
    return Sequences(offsets=offsets, items=dataset.items[place])
