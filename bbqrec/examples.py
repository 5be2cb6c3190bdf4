"""Training and evaluation examples as padded arrays, prepared once, cut into batches without a loop over users."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Int

from bbqrec.data import Batch, Sequences, evaluation_part, training_part, training_windows
from bbqrec.schema import PAD, Dataset


@dataclass(frozen=True, kw_only=True)
class Examples:
    """Rows of `Batch`, all of one width; `lengths` are the real lengths of the histories."""

    history: Int[np.ndarray, "R T"]
    target: Int[np.ndarray, "R S"]
    visible: Int[np.ndarray, "R S"]

    @property
    def lengths(self) -> Int[np.ndarray, "R"]:
        return (self.history != PAD).sum(1)

    def batch(self, rows: Int[np.ndarray, "B"], device: torch.device | str = "cpu") -> Batch:
        """The rows, cut to the longest history among them."""
        history = self.history[rows]
        longest = max(int((history != PAD).sum(1).max()), 1)
        targets = longest if self.target.shape[1] > 1 else 1
        parts = (history[:, :longest], self.target[rows, :targets], self.visible[rows, :targets])
        history_t, target_t, visible_t = (torch.from_numpy(np.ascontiguousarray(part)).to(device) for part in parts)
        return Batch(history=history_t, target=target_t, visible=visible_t)


def training_examples(dataset: Dataset, form: str, max_history: int) -> Examples:
    """Every training target once (NOTES: all training prefixes).

    `prefix`: a row per target; `packed`: a row per window, with a target behind every item; `cloze`: windows with their
    last item, one place longer, of which the model hides what it likes (no target counts).
    """
    if form == "prefix":
        return _prefixes(training_part(dataset), max_history)
    windows = training_windows(dataset, max_history)
    if form == "cloze":
        none = np.zeros((len(windows.items), 1), dtype=windows.items.dtype)
        return Examples(history=windows.items, target=none, visible=none)
    places = np.arange(1, max_history + 1)
    return Examples(
        history=windows.items[:, :-1],
        target=np.where(windows.counted, windows.items[:, 1:], 0),
        visible=np.where(windows.counted, places, 0),
    )


def evaluation_examples(dataset: Dataset, split: str, max_history: int) -> Examples:
    """One row per user, in the order of the data set."""
    part = evaluation_part(dataset, split, max_history)  # type: ignore[arg-type]
    lengths = part.histories.lengths
    return Examples(
        history=_padded(part.histories.items, part.histories.offsets[:-1], lengths, max_history),
        target=part.targets[:, None],
        visible=lengths[:, None],
    )


def popularity(dataset: Dataset) -> Int[np.ndarray, "I"]:
    """Training interactions of each item."""
    return np.bincount(training_part(dataset).items, minlength=dataset.num_items)


def _prefixes(sequences: Sequences, max_history: int) -> Examples:
    lengths = np.maximum(sequences.lengths - 1, 0)  # the first item of a user is no target
    first = np.repeat(sequences.offsets[:-1], lengths)
    number = np.arange(lengths.sum()) - np.repeat(
        np.cumsum(lengths) - lengths, lengths
    )  # items before the target, less one
    seen = np.minimum(number + 1, max_history)
    target = first + number + 1
    return Examples(
        history=_padded(sequences.items, target - seen, seen, max_history),
        target=sequences.items[target][:, None],
        visible=seen[:, None],
    )


def _padded(
    items: Int[np.ndarray, "n"], starts: Int[np.ndarray, "R"], lengths: Int[np.ndarray, "R"], width: int
) -> Int[np.ndarray, "R T"]:
    places = np.arange(width)
    inside = places < lengths[:, None]
    return np.where(inside, items[np.where(inside, starts[:, None] + places, 0)], PAD)
