"""Intervals against SciPy's bootstrap on the same users, and against the truth of simulated studies."""

import numpy as np
import pytest
from scipy import stats

from analysis.bootstrap import intervals, kinds
from bbqrec.metrics import user_scores

METRICS = ("recall@5", "ndcg@10")


def drawn(generator, users: int, seeds: int, share: float) -> np.ndarray:
    """Ranks of which about `share` are found."""
    return np.where(generator.random((seeds, users)) < share, generator.integers(1, 11, (seeds, users)), 11)


def test_kinds_have_every_user_once():
    generator = np.random.default_rng(1)
    ours, theirs = drawn(generator, 500, 3, 0.3), drawn(generator, 500, 3, 0.2)
    found = kinds(ours, theirs)
    counted = {(*a, *b): n for a, b, n in zip(found.ours, found.theirs, found.users, strict=True)}
    expected: dict[tuple, int] = {}
    for user in range(500):
        key = (*ours[:, user], *theirs[:, user])
        expected[key] = expected.get(key, 0) + 1
    assert counted == expected and len(counted) > 50


def test_one_seed_is_the_plain_bootstrap_over_users():
    generator = np.random.default_rng(2)
    ours, theirs = drawn(generator, 400, 1, 0.5), drawn(generator, 400, 1, 0.4)
    found = intervals(kinds(ours, theirs), METRICS)
    for metric in METRICS:
        difference = user_scores(ours[0], metric) - user_scores(theirs[0], metric)
        plain = stats.bootstrap((difference,), np.mean, n_resamples=4000, method="percentile", rng=3)
        width = plain.confidence_interval.high - plain.confidence_interval.low
        assert found[metric] == pytest.approx(tuple(plain.confidence_interval), abs=0.08 * width)


def test_seeds_that_disagree_widen_the_interval():
    generator = np.random.default_rng(4)
    theirs = np.full((4, 3000), 11)
    alike = drawn(generator, 3000, 4, 0.3)
    apart = np.stack([drawn(generator, 3000, 1, share)[0] for share in (0.1, 0.2, 0.4, 0.5)])
    widths = []
    for ours in (alike, apart):
        low, high = intervals(kinds(ours, theirs), METRICS)["recall@5"]
        mean = user_scores(ours.ravel(), "recall@5").mean()
        assert low < mean < high
        widths.append(high - low)
    assert widths[1] > 4 * widths[0]


def test_the_truth_is_inside_about_as_often_as_promised():
    """400 studies whose true difference is known; 95 % of the intervals should hold it."""
    generator = np.random.default_rng(5)
    truth = (0.3 - 0.26) * 0.5
    inside = 0
    for _ in range(400):
        ours, theirs = drawn(generator, 600, 1, 0.3), drawn(generator, 600, 1, 0.26)
        low, high = intervals(kinds(ours, theirs), ("recall@5",), seed=int(generator.integers(1 << 30)))["recall@5"]
        inside += low <= truth <= high
    assert 0.92 <= inside / 400 <= 0.98


def test_users_who_are_all_alike_leave_no_doubt():
    alike = kinds(np.full((2, 50), 3), np.full((2, 50), 11))
    assert intervals(alike, ("recall@5",)) == {"recall@5": (1.0, 1.0)}


def test_shapes_that_cannot_be_compared():
    with pytest.raises(ValueError, match="need two equal ones"):
        kinds(np.ones((2, 5), dtype=int), np.ones((2, 6), dtype=int))
