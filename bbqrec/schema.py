"""Axis letters and the records that flow from raw data to a row of results.

Axis letters of every shape annotation in the package:

    B users (or training rows)   T items of history        S targets per row
    L levels of a semantic ID    M modalities (components) N codes per codebook
    D width of a vector          H heads                   K similarity buckets
    I items of the catalogue     F width of a raw feature  U users of the data set

Items are integers 0..I-1; `PAD` marks an empty place of a history. Ranks start at 1; `UNRANKED` means that the
target is not in the list at all.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

PAD = -1
UNRANKED = np.iinfo(np.int32).max

COMPONENTS = ("id", "text", "image")
"""The behaviour signals of Eq. 4 in the paper's order. Every component but `id` is a modality with raw features."""


@dataclass(frozen=True, kw_only=True)
class Features:
    """Raw vectors of one modality, one row per item; rows of items without this modality are zero."""

    values: Float[np.ndarray, "I F"]
    present: Bool[np.ndarray, "I"]


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """A canonical data set: user u's items, oldest first, are `items[offsets[u]:offsets[u + 1]]`."""

    name: str
    fingerprint: str
    user_ids: np.ndarray
    item_ids: np.ndarray
    titles: np.ndarray
    offsets: Int[np.ndarray, "U1"]
    items: Int[np.ndarray, "n"]
    features: Mapping[str, Features]

    @property
    def num_users(self) -> int:
        return len(self.offsets) - 1

    @property
    def num_items(self) -> int:
        return len(self.item_ids)


@dataclass(frozen=True, kw_only=True)
class Codes:
    """What stage 1 leaves: each item's codes and its quantized vector v (Eq. 10), with the codebooks they came from.

    `codebooks` has one entry per level and component; with a shared codebook the entries of a level are equal. `raw`
    are the nearest codes where `codes` are others (LETTER).
    """

    components: tuple[str, ...]
    codes: Int[np.ndarray, "I L M"]
    vectors: Float[np.ndarray, "I MD"]
    codebooks: Float[np.ndarray, "L M N D"]
    raw: Int[np.ndarray, "I L M"] | None = None


@dataclass(frozen=True, kw_only=True)
class EpochReport:
    """One epoch of one stage: `stage` is "quantizer" or "recommender", `metrics` are plain floats.

    Stage 2 reports `valid/ndcg@10` and friends, never a figure of the test split.
    """

    stage: str
    epoch: int
    epochs: int
    metrics: Mapping[str, float]
