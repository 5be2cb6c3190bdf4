"""Residual quantization against loops; k-means, restarts and usage of shared and separate codebooks."""

import math

import numpy as np
import pytest
import reference as ref
import torch

from bbqrec import codebook as codebook_module
from bbqrec.codebook import ResidualCodebook, kmeans, nearest, nearest_centre, perplexity, straight_through

R, L, M, N, D = 11, 3, 2, 5, 7


def codebook(shared: bool) -> ResidualCodebook:
    torch.manual_seed(4)
    book = ResidualCodebook(L, N, D, M, shared).double()
    with torch.no_grad():
        book.codebooks.mul_(9.0)
    return book


def latents(seed: int = 5) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(size=(R, M, D)))


@pytest.mark.parametrize("shared", [True, False])
def test_forward_equals_the_loops(shared):
    book, z = codebook(shared), latents()
    found = book(z)
    books = book.codebooks.detach().numpy()
    assert books.shape == (L, 1 if shared else M, N, D)
    for r in range(R):
        for m in range(M):
            expected = ref.residual_quantization(z[r, m].numpy(), books[:, 0 if shared else m])
            for value, right in zip(found, expected, strict=True):
                own = value[r, m] if value is found.q else value[r, :, m]
                np.testing.assert_allclose(own.detach().numpy(), right, atol=1e-12)
    assert len({tuple(codes) for codes in found.codes[:, :, 0].tolist()}) > 3
    assert book.per_component().shape == (L, M, N, D)
    for m in range(M):
        torch.testing.assert_close(book.per_component()[:, m], book.codebooks.detach()[:, 0 if shared else m])


@pytest.mark.parametrize("shared", [True, False])
def test_per_component_spells_the_vectors(shared):
    book, z = codebook(shared), latents()
    found, books = book(z), book.per_component()
    for r in range(R):
        for m in range(M):
            q = sum(books[level, m, found.codes[r, level, m]] for level in range(L))
            torch.testing.assert_close(q, found.q[r, m].detach())


def test_one_level_s_loss_trains_its_own_level_only():
    book, z = codebook(True), latents()
    (book(z).codewords[:, 1] - book(z).residuals[:, 1]).square().sum().backward()
    assert [bool(g.abs().sum() > 0) for g in book.codebooks.grad] == [False, True, False]


def test_nearest_prefers_the_lowest_index_of_a_tie():
    books = torch.tensor([[[1.0, 0.0], [-1.0, 0.0], [1.0, 0.0]]])
    assert nearest(torch.tensor([[[0.0, 2.0]], [[3.0, 0.0]]]), books).tolist() == [[0], [0]]


def test_straight_through_has_the_value_of_q_and_the_gradient_of_z():
    z, q = latents().requires_grad_(), latents(6).requires_grad_()
    weight = latents(7)
    mixed = straight_through(z, q)
    torch.testing.assert_close(mixed, q)
    (mixed * weight).sum().backward()
    torch.testing.assert_close(z.grad, weight)
    assert q.grad is None


def test_usage_counts_training_only_by_level_and_component():
    book, z = codebook(True), latents()
    book.eval()
    codes = book(z).codes
    assert book.usage.sum() == 0
    book.train()
    book(z)
    book(z)
    expected = np.zeros((L, M, N))
    for r in range(R):
        for level in range(L):
            for m in range(M):
                expected[level, m, codes[r, level, m]] += 2
    np.testing.assert_array_equal(book.usage.numpy(), expected)


@pytest.mark.parametrize("shared", [True, False])
def test_restart_replaces_exactly_the_dead_codes(shared):
    book = codebook(shared)
    residuals = torch.from_numpy(np.random.default_rng(8).normal(40, 1, (R, L, M, D)))
    alive = torch.from_numpy(np.random.default_rng(9).integers(0, 2, (L, M, N))).double()
    book.usage.copy_(alive * 3)
    before = book.codebooks.detach().clone()
    replaced = book.restart(residuals, torch.Generator().manual_seed(0))
    found = {(level, group, int(code)) for level, group, codes in replaced for code in codes}
    used = alive.amax(1, keepdim=True) if shared else alive
    groups = 1 if shared else M
    expected = {(a, g, n) for a in range(L) for g in range(groups) for n in range(N) if used[a, g, n] == 0}
    assert expected and found == expected
    after = book.codebooks.detach()
    for level in range(L):
        for g in range(groups):
            pool = residuals[:, level].flatten(0, 1) if shared else residuals[:, level, g]
            for n in range(N):
                if (level, g, n) in expected:
                    assert (pool == after[level, g, n]).all(-1).any()
                else:
                    torch.testing.assert_close(after[level, g, n], before[level, g, n])
    assert book.usage.sum() == 0


def test_kmeans_finds_planted_clusters_and_never_raises_the_distance():
    generator = np.random.default_rng(2)
    planted = np.array([[0.0, 0], [30, 0], [0, 30], [30, 30]])
    points = torch.from_numpy(np.concatenate([c + generator.normal(0, 0.5, (40, 2)) for c in planted]))

    def inertia(centres: torch.Tensor) -> float:
        return torch.cdist(points, centres).min(1).values.square().sum().item()

    runs = [kmeans(points, 4, steps, torch.Generator().manual_seed(5)) for steps in range(6)]
    assert all(a >= b - 1e-9 for a, b in zip(map(inertia, runs), map(inertia, runs[1:]), strict=False))
    best = min((kmeans(points, 4, 10, torch.Generator().manual_seed(seed)) for seed in range(10)), key=inertia)
    means = np.sort(np.array([points[40 * i : 40 * i + 40].mean(0).numpy() for i in range(4)]), axis=0)
    np.testing.assert_allclose(np.sort(best.numpy(), axis=0), means, atol=1e-9)


def test_nearest_centre_in_parts_is_that_in_one_piece(monkeypatch):
    generator = torch.Generator().manual_seed(8)
    points, centres = (torch.randint(9, (n, D), generator=generator).double() for n in (23, 6))
    whole = nearest(points[:, None], centres[None])[:, 0]
    monkeypatch.setattr(codebook_module, "DISTANCES_IN_FLIGHT", 40)
    assert torch.equal(nearest_centre(points, centres), whole)


def test_kmeans_with_fewer_points_than_codes_stays_finite():
    centres = kmeans(latents()[:3, 0], 8, 4, torch.Generator().manual_seed(0))
    assert centres.shape == (8, D) and centres.isfinite().all()


@pytest.mark.parametrize("shared", [True, False])
def test_initialise_lowers_the_error_level_by_level_and_pools_as_told(shared):
    book = codebook(shared)
    z = torch.from_numpy(np.random.default_rng(1).normal(size=(300, M, D)))
    z[:, 1] += 25  # the components lie apart
    random_error = (book(z).q - z).square().sum()
    book.initialise(z, 8, torch.Generator().manual_seed(0))
    found = book(z)
    errors = [residual.square().sum().item() for residual in found.residuals.unbind(1)]
    errors.append((found.q - z).square().sum().item())
    assert errors == sorted(errors, reverse=True) and errors[-1] < random_error / 5
    together = set(found.codes[:, 0, 0].tolist()) & set(found.codes[:, 0, 1].tolist())
    if shared:  # one level-0 book must serve both regions, with different codes
        assert not together
    else:  # each component's own book is spent on its own region
        assert set(found.codes[:, 0, 0].tolist()) == set(found.codes[:, 0, 1].tolist()) == set(range(N))
        assert (book.codebooks[0, 0].abs() < 10).all() and (book.codebooks[0, 1] > 10).all()


def test_perplexity_counts_codes_in_effective_use():
    usage = torch.tensor([[4.0, 4, 0, 0], [5, 5, 5, 5], [9, 0, 0, 0], [1, 2, 3, 4]])
    entropy = -sum(x / 10 * math.log(x / 10) for x in (1, 2, 3, 4))
    torch.testing.assert_close(perplexity(usage), torch.tensor([2.0, 4, 1, math.exp(entropy)]))
