"""Ranks of one target per user -> Recall@k and NDCG@k, of each user and on average."""

from collections.abc import Iterable

import numpy as np
from jaxtyping import Float, Int

CUTOFFS = (5, 10)


def recall(ranks: Int[np.ndarray, "U"], k: int) -> float:
    """Share of users whose target is among the first k."""
    return float(np.mean(user_recall(ranks, k)))


def ndcg(ranks: Int[np.ndarray, "U"], k: int) -> float:
    """Mean of 1 / log2(rank + 1) where rank <= k, else 0: with one target the ideal DCG is 1."""
    return float(np.mean(user_ndcg(ranks, k)))


def user_recall(ranks: Int[np.ndarray, "U"], k: int) -> Float[np.ndarray, "U"]:
    """1 for a user whose target is among the first k, else 0."""
    return (ranks <= k).astype(np.float64)


def user_ndcg(ranks: Int[np.ndarray, "U"], k: int) -> Float[np.ndarray, "U"]:
    """The terms whose mean is `ndcg`."""
    return np.where(ranks <= k, 1.0 / np.log2(ranks.astype(np.float64) + 1.0), 0.0)


def user_scores(ranks: Int[np.ndarray, "U"], metric: str) -> Float[np.ndarray, "U"]:
    """Each user's part of "recall@k" or "ndcg@k"."""
    name, _, k = metric.partition("@")
    return {"recall": user_recall, "ndcg": user_ndcg}[name](ranks, int(k))


def scores(ranks: Int[np.ndarray, "U"], cutoffs: Iterable[int] = CUTOFFS) -> dict[str, float]:
    """{"recall@5": ..., "recall@10": ..., "ndcg@5": ..., "ndcg@10": ...}; ranks start at 1."""
    if len(ranks) == 0:
        raise ValueError("no ranks to score")
    if ranks.min() < 1:
        raise ValueError(f"ranks start at 1, got {ranks.min()}")
    cutoffs = tuple(cutoffs)
    return {f"recall@{k}": recall(ranks, k) for k in cutoffs} | {f"ndcg@{k}": ndcg(ranks, k) for k in cutoffs}
