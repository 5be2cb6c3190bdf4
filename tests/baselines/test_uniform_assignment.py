"""Transport, rounding and constrained k-means against loops and against trying all assignments."""

import numpy as np
import pytest
import reference_letter as ref
import torch
from hypothesis import given
from hypothesis import strategies as st

from bbqrec.baselines.uniform_assignment import even_kmeans, log_transport, rounded, uniform_assignment

SIZES = [(9, 4), (8, 4), (3, 7), (5, 5), (1, 3)]


def distances(points: int, codes: int, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng([seed, points, codes]).gamma(2.0, 3.0, (points, codes)))


@pytest.mark.parametrize(("points", "codes"), SIZES)
def test_transport_equals_the_loops(points, codes):
    distance = distances(points, codes)
    found = log_transport(distance, 0.2, 3000).exp().numpy()
    np.testing.assert_allclose(found, ref.transport(distance.numpy(), 0.2, 3000), atol=1e-9)


@pytest.mark.parametrize(("points", "codes"), SIZES)
def test_marginals(points, codes):
    """Rows exactly, columns as the iterations go on: P / N, or at most 1 where there are fewer points."""
    plan = log_transport(distances(points, codes), 0.1, 3000).exp()
    torch.testing.assert_close(plan.sum(1), torch.ones(points, dtype=torch.float64))
    if points >= codes:
        torch.testing.assert_close(plan.sum(0), torch.full((codes,), points / codes, dtype=torch.float64))
    else:
        assert plan.sum(0).max() <= 1 + 1e-9
    few = log_transport(distances(points, codes), 0.1, 1).exp()
    torch.testing.assert_close(few.sum(1), torch.ones(points, dtype=torch.float64))


def test_transport_counts_in_units_of_half_the_range():
    distance = distances(9, 4)
    once = log_transport(distance, 0.05, 20)
    torch.testing.assert_close(log_transport(1000 * distance + 5, 0.05, 20), once)
    assert (log_transport(distance, 0.1, 20) - once).abs().max() > 0.1


@pytest.mark.parametrize("epsilon", [1e-9, 1e-3, 1e3])
@pytest.mark.parametrize(("points", "codes"), [(40, 6), (6, 40)])
def test_no_epsilon_overflows(epsilon, points, codes):
    distance = distances(points, codes)
    distance[0], distance[:, 1] = 1e6, 3e6  # a point and a code far from everything
    for given_distance in (distance, torch.full_like(distance, 2.0), distance.float()):
        assert log_transport(given_distance, epsilon, 200).isfinite().all()


def test_what_is_no_number_is_not_assigned():
    distance = distances(9, 4)
    distance[3, 1] = torch.nan
    with pytest.raises(FloatingPointError, match="a distance to a code is not finite"):
        log_transport(distance, 0.2, 5)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(("points", "codes"), [(9, 4), (8, 4), (11, 3), (3, 7), (5, 5), (1, 3)])
def test_rounding_equals_the_loops(points, codes, seed):
    score = -distances(points, codes, seed)
    if seed % 2:
        score = score.round()  # ties
    assert rounded(score).tolist() == ref.rounded(score.numpy())


@given(st.integers(1, 40), st.integers(1, 12), st.integers(0, 9), st.booleans())
def test_every_code_gets_its_share(points, codes, seed, tied):
    score = torch.zeros(points, codes) if tied else -distances(points, codes, seed)
    counts = torch.bincount(rounded(score), minlength=codes)
    assert counts.sum() == points and counts.min() == points // codes and counts.max() == -(-points // codes)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("points", "codes", "within"), [(6, 3, 1.01), (4, 5, 1.01), (7, 3, 1.2)])
def test_the_assignment_costs_about_the_least(points, codes, within, seed):
    """Shares of 7 / 3 are no whole points: what is rounded off costs something."""
    generator = np.random.default_rng([seed, points])
    x, c = (torch.from_numpy(generator.normal(size=(n, 3))) for n in (points, codes))
    distance = ref.squared_distances(x.numpy(), c.numpy())
    chosen = uniform_assignment(x, c, 0.003, 2000)
    assert distance[np.arange(points), chosen.numpy()].sum() <= ref.cheapest(distance) * within


def test_equal_points_get_different_codes():
    x, c = torch.ones(5, 2), torch.from_numpy(np.random.default_rng(0).normal(size=(7, 2))).float()
    assert len(set(uniform_assignment(x, c, 0.003, 50).tolist())) == 5
    assert sorted(torch.bincount(uniform_assignment(torch.ones(16, 2), c, 0.003, 50)).tolist()) == [2] * 5 + [3] * 2


def test_clusters_are_even_and_found():
    """Three planted groups of nine; of two unequal ones the larger gives some up."""
    generator = np.random.default_rng(3)
    planted = np.repeat([[0.0, 0], [20, 0], [0, 20]], 9, axis=0) + generator.normal(0, 0.5, (27, 2))
    mixed = generator.permutation(27)
    for seed in range(4):
        cluster = even_kmeans(
            torch.from_numpy(planted[mixed]), 3, 10, 0.003, 200, torch.Generator().manual_seed(seed)
        ).numpy()
        groups = [set(cluster[mixed // 9 == g].tolist()) for g in range(3)]
        assert [len(group) for group in groups] == [1, 1, 1] and len(set.union(*groups)) == 3
    uneven = torch.from_numpy(np.concatenate([generator.normal(0, 1, (14, 2)), generator.normal(30, 1, (6, 2))]))
    cluster = even_kmeans(uneven, 2, 10, 0.003, 200, torch.Generator().manual_seed(0))
    assert torch.bincount(cluster).tolist() == [10, 10] and len(set(cluster[14:].tolist())) == 1


def test_clusters_answer_to_the_generator():
    x = torch.from_numpy(np.random.default_rng(1).normal(size=(30, 4)))
    one, same, other = (even_kmeans(x, 4, 2, 0.003, 20, torch.Generator().manual_seed(n)) for n in (0, 0, 1))
    assert torch.equal(one, same) and not torch.equal(one, other)
