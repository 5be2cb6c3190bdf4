"""The paired test against closed forms of Student's distribution, and Holm's correction against a worked example."""

import math

import numpy as np
import pytest

from analysis.significance import LEVEL, POWER, detectable, effect_size, holm, mean_over_seeds, paired_t_test, wilcoxon


def test_two_users_one_degree_of_freedom():
    """Differences 1 and 3: mean 2, deviation sqrt(2), t = 2; with one degree of freedom p = 1 - 2/pi atan(t)."""
    found = paired_t_test(np.array([5.0, 4.0]), np.array([4.0, 1.0]))
    assert (found.difference, found.users) == (2.0, 2)
    assert found.t == pytest.approx(2.0)
    assert found.p == pytest.approx(1 - 2 / math.pi * math.atan(2.0))


def test_three_users_two_degrees_of_freedom():
    """p = 1 - t / sqrt(t^2 + 2) for t > 0."""
    theirs = np.array([0.3, 0.1, 0.7])
    found = paired_t_test(theirs + np.array([1.0, 2.0, 6.0]), theirs)
    t = 3 / math.sqrt(7 / 3)
    assert found.t == pytest.approx(t)
    assert found.p == pytest.approx(1 - t / math.sqrt(t**2 + 2))


def test_two_sided_and_signed():
    generator = np.random.default_rng(0)
    ours, theirs = generator.random(50) + 0.5, generator.random(50)
    better, worse = paired_t_test(ours, theirs), paired_t_test(theirs, ours)
    assert better.p == worse.p < 0.01 and better.t == -worse.t > 0 and better.difference == -worse.difference > 0


def test_paired_not_pooled():
    """A small gain of every user is certain, however far the users lie apart."""
    theirs = np.arange(40.0)
    assert paired_t_test(theirs + 0.1 + 0.01 * (np.arange(40) % 2), theirs).p < 1e-9


def test_no_difference_at_all():
    same = np.array([0.0, 1.0, 0.0])
    found = paired_t_test(same, same.copy())
    assert (found.difference, found.t, found.p) == (0.0, 0.0, 1.0)


@pytest.mark.parametrize(("ours", "theirs"), [([1.0], [2.0]), ([1.0, 2.0], [1.0, 2.0, 3.0]), ([], [])])
def test_what_cannot_be_paired(ours, theirs):
    with pytest.raises(ValueError, match="paired values of shapes"):
        paired_t_test(np.array(ours), np.array(theirs))


@pytest.mark.parametrize(
    ("p", "corrected"),
    [
        ([], []),
        ([0.03], [0.03]),
        # .005 x 4, .01 x 3, .03 x 2, and .04 x 1, which may not come out below .06
        ([0.01, 0.04, 0.03, 0.005], [0.03, 0.06, 0.06, 0.02]),
        ([0.4, 0.5, 0.6], [1.0, 1.0, 1.0]),
        ([0.02, 0.02], [0.04, 0.04]),
    ],
)
def test_holm(p, corrected):
    assert holm(p) == pytest.approx(corrected)


def test_users_are_averaged_over_seeds_by_score_not_by_rank():
    ranks = [np.array([1, 3, 11]), np.array([5, 11, 6])]
    assert mean_over_seeds(ranks, "recall@5").tolist() == [1.0, 0.5, 0.0]
    expected = [(1 + 1 / math.log2(6)) / 2, 0.25, 1 / math.log2(7) / 2]
    assert mean_over_seeds(ranks, "ndcg@10").tolist() == pytest.approx(expected)


def test_the_order_of_the_seeds_is_no_difference():
    generator = np.random.default_rng(0)
    ours = generator.integers(1, 11, (3, 1000))
    theirs = generator.permuted(ours, axis=0)
    values = [mean_over_seeds(list(side), "ndcg@10") for side in (ours, theirs)]
    assert paired_t_test(*values).p == wilcoxon(*values) == 1.0 and effect_size(*values) == 0.0


def test_wilcoxon_of_a_textbook():
    """Wilcoxon (1945), after Darwin: heights of cross- and self-fertilised maize, 15 pairs; T = 24, exact p 0.0413."""
    cross = np.array([188, 96, 168, 176, 153, 172, 177, 163, 146, 173, 186, 168, 177, 184, 96]) / 8
    own = np.array([139, 163, 160, 160, 147, 149, 149, 122, 132, 144, 130, 144, 102, 124, 144]) / 8
    assert wilcoxon(cross, own) == pytest.approx(0.0413, abs=5e-4)
    assert wilcoxon(own, cross) == wilcoxon(cross, own)
    assert wilcoxon(own, own) == 1.0


def test_student_of_a_textbook():
    """Student (1908): additional hours of sleep by two drugs, 10 patients; t = 4.06, p = 0.0028, d = 1.28."""
    first = np.array([0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0])
    second = np.array([1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4])
    found = paired_t_test(second, first)
    assert (found.t, found.p) == pytest.approx((4.0621, 0.002833), abs=1e-4)
    assert effect_size(second, first) == pytest.approx(1.58 / 1.23, abs=2e-3)
    assert effect_size(first, first) == 0.0 and effect_size(first + 1, first) > 1e9


def simulated(generator, users: int, difference: float) -> tuple[np.ndarray, np.ndarray]:
    """Hits of the same users under two methods, of which the first finds `difference` more."""
    ease = generator.random(users)
    hits = [(generator.random(users) < 0.15 + 0.2 * ease + gain) for gain in (difference, 0.0)]
    return hits[0].astype(float), hits[1].astype(float)


def test_without_a_difference_one_test_in_twenty_is_wrong():
    generator = np.random.default_rng(11)
    wrong = np.mean([paired_t_test(*simulated(generator, 400, 0.0)).p < LEVEL for _ in range(4000)])
    assert abs(wrong - 0.05) <= 0.01


def test_the_detectable_difference_is_found_as_often_as_promised_and_power_rises_with_it():
    generator = np.random.default_rng(12)
    least = np.mean([detectable(*simulated(generator, 1500, 0.0)) for _ in range(40)])
    found = [
        np.mean([paired_t_test(*simulated(generator, 1500, share * least)).p < LEVEL for _ in range(600)])
        for share in (0.5, 1.0, 1.5)
    ]
    assert found[0] < found[1] < found[2]
    assert abs(found[1] - POWER) < 0.06
