"""The sum of Eq. 17 and its hand-written gradients against loops over every pair of tokens and every channel."""

import numpy as np
import pytest
import torch

from bbqrec.similarity_mix import similarity_mix

B, H, T, L, C, ROWS = 2, 3, 4, 2, 5, 7


def parts(causal: bool) -> tuple[torch.Tensor, ...]:
    generator = np.random.default_rng(4)
    alpha = generator.random((B, H, T * L, T * L))
    if causal:
        for i in range(T * L):
            for j in range(T * L):
                if j // L > i // L:
                    alpha[:, :, i, j] = 0.0
    v, table = generator.normal(size=(B, H, T * L, C)), generator.normal(size=(ROWS, H * C))
    return tuple(torch.from_numpy(x).requires_grad_() for x in (alpha, v, table))


INDEX = torch.from_numpy(np.random.default_rng(9).integers(0, ROWS, (B, T, T)))
WEIGHT = torch.from_numpy(np.random.default_rng(8).normal(size=(B, H, T * L, C)))


def loops(alpha, v, table):
    """The sum, and the gradients of sum(WEIGHT * sum) with respect to its three arguments."""
    out, by_alpha, by_v, by_table = (np.zeros(x.shape) for x in (v, alpha, v, table))
    for b in range(B):
        for h in range(H):
            for i in range(T * L):
                for j in range(T * L):
                    row = int(INDEX[b, i // L, j // L])
                    for c in range(C):
                        e, a, value, w = (
                            table[row, h * C + c],
                            alpha[b, h, i, j],
                            v[b, h, j, c],
                            WEIGHT[b, h, i, c].item(),
                        )
                        out[b, h, i, c] += e * (a * value)
                        by_alpha[b, h, i, j] += w * e * value
                        by_v[b, h, j, c] += w * e * a
                        by_table[row, h * C + c] += w * a * value
    return out, by_alpha, by_v, by_table


@pytest.mark.parametrize("causal", [True, False])
def test_value_and_gradients_equal_the_loops(causal):
    alpha, v, table = parts(causal)
    found = similarity_mix(alpha, v, table, INDEX, causal)
    (found * WEIGHT).sum().backward()
    out, by_alpha, by_v, by_table = loops(*(x.detach().numpy() for x in (alpha, v, table)))
    np.testing.assert_allclose(found.detach().numpy(), out, atol=1e-12)
    np.testing.assert_allclose(v.grad.numpy(), by_v, atol=1e-12)
    np.testing.assert_allclose(table.grad.numpy(), by_table, atol=1e-12)
    # Where the promise of causality holds, alpha is a constant 0 and its gradient is nobody's.
    seen = np.array([[not causal or j // L <= i // L for j in range(T * L)] for i in range(T * L)])
    np.testing.assert_allclose(alpha.grad.numpy() * seen, by_alpha * seen, atol=1e-12)


def test_causal_skips_what_is_zero_anyway():
    alpha, v, table = parts(True)
    one, other = (similarity_mix(alpha, v, table, INDEX, causal) for causal in (True, False))
    torch.testing.assert_close(one, other, atol=1e-12, rtol=0)


def test_values_that_are_not_contiguous():
    alpha, v, table = parts(False)
    turned = v.transpose(1, 2).contiguous().transpose(1, 2)
    assert not turned.is_contiguous()
    found = similarity_mix(alpha, turned, table, INDEX)
    torch.testing.assert_close(found, similarity_mix(alpha, v, table, INDEX))
    grads = torch.autograd.grad((found * WEIGHT).sum(), (alpha, v, table))
    expected = torch.autograd.grad((similarity_mix(alpha, v, table, INDEX) * WEIGHT).sum(), (alpha, v, table))
    for one, other in zip(grads, expected, strict=True):
        torch.testing.assert_close(one, other)
