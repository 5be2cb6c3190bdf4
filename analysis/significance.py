"""Paired tests over users, what they could have found, and Holm's correction. Pure functions on arrays."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from scipy import stats

from bbqrec.metrics import user_scores

LEVEL = 0.05
POWER = 0.8
"""Probability with which a difference of the detectable size is found."""


@dataclass(frozen=True, kw_only=True)
class PairedTest:
    """Mean difference over `users`, Student's t and its two-sided p."""

    difference: float
    t: float
    p: float
    users: int


def paired_t_test(ours: Float[np.ndarray, " U"], theirs: Float[np.ndarray, " U"]) -> PairedTest:
    """Two-sided paired t-test of the same users under two methods.

    Where no user differs there is nothing to tell apart: t is 0 and p is 1. Raises ValueError for fewer than two users
    or two numbers of users.
    """
    if ours.shape != theirs.shape or ours.ndim != 1 or len(ours) < 2:
        raise ValueError(f"paired values of shapes {ours.shape} and {theirs.shape}, need two equal ones of 2 or more")
    difference = ours - theirs
    if not difference.any():
        return PairedTest(difference=0.0, t=0.0, p=1.0, users=len(ours))
    found = stats.ttest_1samp(difference, 0.0)
    return PairedTest(
        difference=float(difference.mean()), t=float(found.statistic), p=float(found.pvalue), users=len(ours)
    )


def wilcoxon(ours: Float[np.ndarray, " U"], theirs: Float[np.ndarray, " U"]) -> float:
    """Two-sided p of Wilcoxon's signed-rank test of the same users; users without a difference do not count.

    1 where no user differs. It asks whether users tend to do better, whatever by how much, where the t-test asks for
    the mean: beside each other they tell a broad small gain from a few large ones.
    """
    difference = ours - theirs
    return float(stats.wilcoxon(difference).pvalue) if difference.any() else 1.0


def effect_size(ours: Float[np.ndarray, " U"], theirs: Float[np.ndarray, " U"]) -> float:
    """Cohen's d of paired values: the mean difference over the differences' standard deviation; 0 without any."""
    difference = ours - theirs
    spread = float(difference.std(ddof=1))
    if spread == 0:
        return 0.0 if not difference.any() else float(np.copysign(np.inf, difference.mean()))
    return float(difference.mean()) / spread


def detectable(ours: Float[np.ndarray, " U"], theirs: Float[np.ndarray, " U"], level: float = LEVEL) -> float:
    """The smallest mean difference that the two-sided t-test would find with probability POWER among so many users.

    By quantiles of Student's t (Cohen, 1988), from the spread of the differences at hand.
    """
    users = len(ours)
    quantiles = stats.t.ppf([1 - level / 2, POWER], users - 1).sum()
    return float(quantiles * (ours - theirs).std(ddof=1) / np.sqrt(users))


def holm(p: Sequence[float]) -> list[float]:
    """p-values corrected for their number (Holm, 1979): the k-th smallest times what is left, never below a smaller."""
    ascending = np.argsort(p, kind="stable")
    left = len(p) - np.arange(len(p))
    stepped = np.maximum.accumulate(np.asarray(p, dtype=float)[ascending] * left)
    corrected = np.empty(len(p))
    corrected[ascending] = np.minimum(stepped, 1.0)
    return corrected.tolist()


def mean_over_seeds(ranks: Sequence[Int[np.ndarray, " U"]], metric: str) -> Float[np.ndarray, " U"]:
    """Each user's "recall@k" or "ndcg@k", averaged over runs of several seeds.

    In order of size: who has the same scores under other seeds has the same mean to the last bit, and no difference.
    """
    return np.mean(np.sort([user_scores(found, metric) for found in ranks], axis=0), axis=0)
