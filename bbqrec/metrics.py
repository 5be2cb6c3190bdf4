"""Ranks of one target per user -> Recall@k and NDCG@k."""

from collections.abc import Iterable

import numpy as np
from jaxtyping import Int

CUTOFFS = (5, 10)


def recall(ranks: Int[np.ndarray, "U"], k: int) -> float:
    """Share of users whose target is among the first k."""
    return float(np.mean(ranks <= k))


def ndcg(ranks: Int[np.ndarray, "U"], k: int) -> float:
    """Mean of 1 / log2(rank + 1) where rank <= k, else 0: with one target the ideal DCG is 1."""
    return float(np.mean(np.where(ranks <= k, 1.0 / np.log2(ranks.astype(np.float64) + 1.0), 0.0)))


def scores(ranks: Int[np.ndarray, "U"], cutoffs: Iterable[int] = CUTOFFS) -> dict[str, float]:
    """{"recall@5": ..., "recall@10": ..., "ndcg@5": ..., "ndcg@10": ...}; ranks start at 1."""
    if len(ranks) == 0:
        raise ValueError("no ranks to score")
    if ranks.min() < 1:
        raise ValueError(f"ranks start at 1, got {ranks.min()}")
    cutoffs = tuple(cutoffs)
    return {f"recall@{k}": recall(ranks, k) for k in cutoffs} | {f"ndcg@{k}": ndcg(ranks, k) for k in cutoffs}
