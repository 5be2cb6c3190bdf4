"""Bootstrap confidence intervals of a mean difference over users and seeds, from the ranks of both sides.

Ranks are clipped, and most users' targets are found by nobody: how many of these are drawn is a binomial number, and
only the others are drawn one by one. That is the same bootstrap and takes a small part of the time.
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
    differences = np.concatenate([_differences(found, metric) for metric in metrics], axis=1)  # (R, metrics x S)
    common = int(found.users.argmax())  # nearly everybody, drawn as a number
    others = np.delete(np.arange(len(found.users)), common)
    members = np.repeat(np.arange(len(others)), found.users[others])
    drawn = generator.binomial(total, len(members) / total, size=REPLICATES)
    means = np.empty((REPLICATES, differences.shape[1]))
    for replicate, size in enumerate(drawn):
        one_by_one = members[generator.integers(max(len(members), 1), size=size)]
        counts = np.bincount(one_by_one, minlength=len(others))
        means[replicate] = (counts @ differences[others] + (total - size) * differences[common]) / total
    chosen = generator.integers(seeds, size=(REPLICATES, seeds))  # (B, S)
    edges = [(1 - COVERAGE) / 2, (1 + COVERAGE) / 2]
    limits = {}
    for place, metric in enumerate(metrics):
        by_seed = means[:, place * seeds : (place + 1) * seeds]  # (B, S)
        low, high = np.quantile(np.take_along_axis(by_seed, chosen, axis=1).mean(1), edges)
        limits[metric] = (float(low), float(high))
    return limits


def _differences(found: Kinds, metric: str) -> Float[np.ndarray, "R S"]:
    ours, theirs = (user_scores(side.ravel(), metric) for side in (found.ours, found.theirs))
    return (ours - theirs).reshape(found.ours.shape)
