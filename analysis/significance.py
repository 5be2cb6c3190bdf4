"""Paired tests over users, and Holm's correction for many of them. Pure functions on arrays."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from scipy import stats

from bbqrec.metrics import user_scores

LEVEL = 0.05


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


def holm(p: Sequence[float]) -> list[float]:
    """p-values corrected for their number (Holm, 1979): the k-th smallest times what is left, never below a smaller."""
    ascending = np.argsort(p, kind="stable")
    left = len(p) - np.arange(len(p))
    stepped = np.maximum.accumulate(np.asarray(p, dtype=float)[ascending] * left)
    corrected = np.empty(len(p))
    corrected[ascending] = np.minimum(stepped, 1.0)
    return corrected.tolist()


def mean_over_seeds(ranks: Sequence[Int[np.ndarray, " U"]], metric: str) -> Float[np.ndarray, " U"]:
    """Each user's "recall@k" or "ndcg@k", averaged over runs of several seeds."""
    return np.mean([user_scores(found, metric) for found in ranks], axis=0)
