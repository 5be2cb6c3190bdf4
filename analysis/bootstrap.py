"""Bootstrap confidence intervals of a mean difference over users and seeds, from the ranks of both sides.

Ranks are clipped, and most users' targets are found by nobody: users with the same ranks are drawn together, by a
multinomial distribution, which is the same bootstrap and takes a hundredth of the time.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from bbqrec.metrics import user_scores

REPLICATES = 1000
COVERAGE = 0.95


@dataclass(frozen=True)
class Kinds:
    """Users of a kind have the same ranks under both methods and all seeds: `ours` and `theirs` of each kind, and how
    many `users` are of it."""

    ours: Int[np.ndarray, "R S"]
    theirs: Int[np.ndarray, "R S"]
    users: Int[np.ndarray, " R"]


def kinds(ours: Int[np.ndarray, "S U"], theirs: Int[np.ndarray, "S U"]) -> Kinds:
    """Groups the users. Raises ValueError for different shapes."""
    if ours.shape != theirs.shape or ours.ndim != 2:
        raise ValueError(f"ranks of shapes {ours.shape} and {theirs.shape}, need two equal ones of seeds x users")
    code = np.zeros(ours.shape[1], dtype=np.int64)
    for column in (*ours, *theirs):
        _, place = np.unique(column, return_inverse=True)
        _, code = np.unique(code * (place.max() + 1) + place, return_inverse=True)  # small again: no overflow
    _, first, users = np.unique(code, return_index=True, return_counts=True)
    return Kinds(ours=ours[:, first].T, theirs=theirs[:, first].T, users=users)


def intervals(found: Kinds, metrics: tuple[str, ...], seed: int = 0) -> dict[str, tuple[float, float]]:
    """The COVERAGE interval (percentiles) of the mean difference, ours less theirs, by metric ("recall@k", "ndcg@k").

    Users are drawn with replacement, and so are the seeds, the same for both sides.
    """
    generator = np.random.default_rng(seed)
    total, seeds = int(found.users.sum()), found.ours.shape[1]
    drawn = generator.multinomial(total, found.users / total, size=REPLICATES)  # (B, R)
    chosen = generator.integers(seeds, size=(REPLICATES, seeds))  # (B, S)
    edges = [(1 - COVERAGE) / 2, (1 + COVERAGE) / 2]
    limits = {}
    for metric in metrics:
        ours, theirs = (user_scores(side.ravel(), metric) for side in (found.ours, found.theirs))
        difference: Float[np.ndarray, "R S"] = (ours - theirs).reshape(found.ours.shape)
        by_seed = drawn @ difference / total  # (B, S)
        means = np.take_along_axis(by_seed, chosen, axis=1).mean(1)  # (B,)
        low, high = np.quantile(means, edges)
        limits[metric] = (float(low), float(high))
    return limits
