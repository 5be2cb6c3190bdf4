"""Eq. 9, 12, 13 and the generator's cross-entropy against float64 loops; gradients answer to every weight."""

import numpy as np
import pytest
import reference as ref
import torch
from hypothesis import given
from hypothesis import strategies as st

from bbqrec.losses import (
    QuantizerLosses,
    next_codes,
    reconstruction,
    residual_quantization,
    sequence_to_item,
    total,
)

REDUCTIONS = ("mean", "sum")


def randoms(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng([seed, *shape]).normal(size=shape))


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("present", [[True, False, True, True, False], [False] * 5, [True] * 5])
def test_reconstruction_counts_the_present_items_only(reduction, present):
    x, x_hat, mask = randoms(5, 7), randoms(5, 7, seed=1), torch.tensor(present)
    expected = ref.reconstruction(x.numpy(), x_hat.numpy(), present, reduction == "mean")
    assert reconstruction(x, x_hat, mask, reduction).item() == pytest.approx(expected, rel=1e-12)
    x_hat.requires_grad_()
    reconstruction(x, x_hat, mask, reduction).backward()
    assert (x_hat.grad.abs().sum(1) > 0).tolist() == present


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("alpha", [0.0, 0.25, 1.75])
def test_residual_quantization_value_and_both_gradients(reduction, alpha):
    rows, levels, components, codes, width = 4, 3, 2, 5, 7
    z = randoms(rows, components, width).requires_grad_()
    books = randoms(levels, components, codes, width, seed=2).requires_grad_()
    value, by_z, by_books = ref.rq_loss(z.detach().numpy(), books.detach().numpy(), alpha, reduction == "mean")
    residual, residuals, codewords = z, [], []
    for level in range(levels):
        distance = (residual.detach()[:, :, None] - books[level].detach()[None]).square().sum(-1)
        chosen = torch.stack([books[level, m, distance.argmin(-1)[:, m]] for m in range(components)], dim=1)
        residuals.append(residual)
        codewords.append(chosen)
        residual = residual - chosen.detach()
    loss = residual_quantization(torch.stack(residuals, 1), torch.stack(codewords, 1), alpha, reduction)
    loss.backward()
    assert loss.item() == pytest.approx(value, rel=1e-12)
    np.testing.assert_allclose(z.grad.numpy(), by_z, atol=1e-12)
    np.testing.assert_allclose(books.grad.numpy(), by_books, atol=1e-12)


@pytest.mark.parametrize("tau", [0.07, 0.5, 2.0])
def test_sequence_to_item_masks_equal_items(tau):
    batch = [4, 9, 4, 2, 9, 4, 7]  # items of the batch with their repetitions
    positives = [9, 4, 4, 7, 2, 9]
    vectors = dict(zip(sorted(set(batch)), randoms(4, 5).numpy(), strict=True))
    states = randoms(6, 5, seed=3)
    expected = ref.contrastive(states.numpy(), positives, batch, vectors, tau)
    items = sorted(vectors)
    target = torch.tensor([items.index(p) for p in positives])
    candidates = torch.from_numpy(np.stack([vectors[i] for i in items]))
    assert sequence_to_item(states, candidates, target, tau).item() == pytest.approx(expected, rel=1e-12)


def test_contrastive_loss_ignores_the_length_of_vectors():
    h, v, target = randoms(6, 5), randoms(4, 5, seed=1), torch.tensor([0, 3, 3, 1, 2, 0])
    scaled = v * torch.tensor([[0.1], [3.0], [20.0], [1.0]], dtype=v.dtype)
    assert sequence_to_item(7 * h, scaled, target, 0.1).item() == pytest.approx(
        sequence_to_item(h, v, target, 0.1).item(), rel=1e-9
    )


numbers = st.floats(-9, 9, allow_nan=False)


@given(numbers, numbers, numbers, numbers, numbers, numbers)
def test_total_weighs_each_term(recon, rq, rec, mim, beta, gamma):
    leaves = [torch.tensor(x, dtype=torch.float64, requires_grad=True) for x in (recon, rq, rec, mim)]
    value = total(QuantizerLosses(*leaves), beta, gamma)
    value.backward()
    assert value.item() == pytest.approx(ref.total(recon, rq, rec, mim, beta, gamma), abs=1e-9)
    assert [leaf.grad.item() for leaf in leaves] == [1.0, 1.0, beta, gamma]


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_next_codes_is_the_mean_over_levels_and_components(smoothing):
    logits = randoms(4, 3, 2, 5)
    codes = torch.from_numpy(np.random.default_rng(5).integers(0, 5, (4, 3, 2)))
    expected = ref.composite_loss(logits.numpy(), codes.numpy(), smoothing)
    assert next_codes(logits, codes, smoothing).item() == pytest.approx(expected, rel=1e-12)
