"""Eq. 14-17 and T5's relative positions against loops over pairs of tokens."""

import functools
import math

import numpy as np
import pytest
import reference as ref
import torch

from bbqrec.attention import (
    Attention,
    RelativeBias,
    SimilarityTable,
    mask_bias,
    relative_position_buckets,
    similarity_buckets,
)

B, T, L, H, C, E, K = 2, 4, 3, 2, 5, 7, 9


def randoms(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng([seed, *shape]).normal(size=shape))


REAL = torch.tensor([[True, True, True, True], [True, True, False, False]])


@pytest.mark.parametrize("buckets", [1, 5, 100])
def test_buckets_equal_the_pairs(buckets):
    v = randoms(B, T, 6)
    found = similarity_buckets(v, REAL, buckets)
    for b in range(B):
        np.testing.assert_array_equal(found[b].numpy(), ref.similarity_buckets(v[b].numpy(), REAL[b], buckets))
    assert found[0].diagonal().tolist() == [buckets] * T
    assert (found[1, 2:] == buckets + 1).all() and (found[1, :, 2:] == buckets + 1).all()


def test_halves_are_rounded_up_and_the_ends_are_reached():
    """Orthogonal vectors lie at K / 2: 2.5 -> 3 (half to even would give 2), 4.5 -> 5; opposite ones at 0."""
    v = torch.tensor([[[1.0, 0.0], [0.0, 2.0], [-3.0, 0.0], [5.0, 0.0]]])
    real = torch.ones(1, 4, dtype=torch.bool)
    for buckets, half in ((5, 3), (9, 5), (4, 2), (1, 1)):
        found = similarity_buckets(v, real, buckets)[0]
        assert found[0].tolist() == [buckets, half, 0, buckets]
        assert (found == found.T).all()


def test_an_item_with_itself_is_k_even_if_its_vector_is_zero():
    v = torch.tensor([[[1.0, 0.0], [0.0, 0.0]]])
    found = similarity_buckets(v, torch.ones(1, 2, dtype=torch.bool), 6)[0]
    assert found.tolist() == [[6, 3], [3, 6]]


def test_similarity_table_starts_neutral_or_as_the_paper_reads():
    assert (SimilarityTable(K, H, C, "ones").table == 1).all()
    literal = SimilarityTable(K, H, C, "uniform").table
    assert literal.shape == (K + 2, H * C)
    assert ((literal[:-1] >= 0) & (literal[:-1] <= 0.01)).all() and (literal[-1] == 1).all()


@pytest.mark.parametrize("decay", [0.0, 0.5])
def test_the_neutral_row_stays_at_one(decay):
    table = SimilarityTable(K, H, C, "ones").double()
    optimizer = torch.optim.AdamW(table.parameters(), lr=0.1, weight_decay=decay)
    index = torch.tensor([[[1, 2], [2, K + 1]]])
    for _ in range(3):
        optimizer.zero_grad()
        table(randoms(1, H, 2 * L, 2 * L), randoms(1, H, 2 * L, C), index, False).square().sum().backward()
        optimizer.step()
    assert (table.table[1] != 1).all() and (table.table[K + 1] == 1).all()


@pytest.mark.parametrize("scale", ["t5", "sqrt"])
@pytest.mark.parametrize("with_similarity", [True, False])
@pytest.mark.parametrize("packed", [True, False])
def test_attention_equals_the_loops(scale, with_similarity, packed):
    """Heads, relative positions, key padding, the item-causal mask and Eq. 17 at once."""
    torch.manual_seed(2)
    layer = Attention(E, H, C, scale).double()
    bias_table = RelativeBias(H, True, 8, 12).double()
    table = SimilarityTable(K, H, C, "ones").double()
    with torch.no_grad():
        table.delta.copy_(randoms(K + 1, H * C, seed=3))
        bias_table.table.weight.mul_(40)
        layer.q.weight.mul_(3)
    x, v = randoms(B, T * L, E), randoms(B, T, 6, seed=4)
    buckets = similarity_buckets(v, REAL, K)
    positions = torch.arange(T * L)
    visible = REAL[:, None, :].expand(B, T, T)
    visible = visible.tril() if packed else visible
    tokens = visible.repeat_interleave(L, 1).repeat_interleave(L, 2)
    bias = bias_table(positions, positions) + mask_bias(tokens)[:, None]
    mix = functools.partial(table, buckets=buckets, causal=packed) if with_similarity else torch.matmul
    found = layer(x, layer.keys_values(x), bias, mix).detach().numpy()

    weights = {name: getattr(layer, name).weight.detach().numpy() for name in "qkvo"}
    own_bias = np.zeros((H, T * L, T * L))
    for i in range(T * L):
        for j in range(T * L):
            own_bias[:, i, j] = bias_table.table.weight[ref.relative_bucket(j - i, True, 8, 12)].detach().numpy()
    for b in range(B):
        real = REAL[b].tolist()
        e_sim = None
        if with_similarity:
            e_sim = table.table.detach().numpy()[ref.similarity_buckets(v[b].numpy(), real, K)]
        seen = [[real[j // L] and (not packed or j // L <= i // L) for j in range(T * L)] for i in range(T * L)]
        factor = 1.0 if scale == "t5" else 1 / math.sqrt(C)
        expected = ref.attention(x[b].numpy(), x[b].numpy(), weights, H, factor, own_bias, seen, e_sim, L)
        length = sum(real) * L  # what a padded place computes is never read
        np.testing.assert_allclose(found[b, :length], expected[:length], atol=1e-10)


def test_a_table_of_ones_is_plain_attention():
    layer = Attention(E, H, C, "t5").double()
    x = randoms(B, T * L, E)
    buckets = similarity_buckets(randoms(B, T, 6), REAL, K)
    mix = functools.partial(SimilarityTable(K, H, C, "ones").double(), buckets=buckets, causal=False)
    bias = torch.zeros(1, 1, T * L, T * L, dtype=torch.float64)
    torch.testing.assert_close(layer(x, layer.keys_values(x), bias, mix), layer(x, layer.keys_values(x), bias))


def test_cross_attention_takes_queries_of_another_length():
    layer = Attention(E, H, C, "t5").double()
    queries, memory = randoms(B, 2, E), randoms(B, 6, E, seed=1)
    weights = {name: getattr(layer, name).weight.detach().numpy() for name in "qkvo"}
    bias = randoms(B, 1, 2, 6, seed=2)
    found = layer(queries, layer.keys_values(memory), bias)
    for b in range(B):
        own = np.repeat(bias[b].numpy(), H, axis=0)
        expected = ref.attention(queries[b].numpy(), memory[b].numpy(), weights, H, 1.0, own, np.ones((2, 6)))
        np.testing.assert_allclose(found[b].detach().numpy(), expected, atol=1e-10)


@pytest.mark.parametrize("bidirectional", [True, False])
@pytest.mark.parametrize(("buckets", "longest"), [(32, 128), (8, 20), (6, 50)])
def test_relative_position_buckets_equal_t5_s(bidirectional, buckets, longest):
    distances = list(range(-150, 151))
    found = relative_position_buckets(torch.tensor(distances), bidirectional, buckets, longest)
    assert found.tolist() == [ref.relative_bucket(d, bidirectional, buckets, longest) for d in distances]
    assert found.min() >= 0 and found.max() < buckets


def test_relative_bias_is_the_table_s_entry_of_key_minus_query():
    bias = RelativeBias(H, False, 8, 20)
    queries, keys = torch.tensor([2, 5]), torch.tensor([0, 1, 2, 3, 4, 5])
    found = bias(queries, keys)
    assert found.shape == (1, H, 2, 6)
    for i, query in enumerate(queries.tolist()):
        for j, key in enumerate(keys.tolist()):
            torch.testing.assert_close(
                found[0, :, i, j], bias.table.weight[ref.relative_bucket(key - query, False, 8, 20)]
            )


def test_mask_bias_hides_without_infinities():
    bias = mask_bias(torch.tensor([[True, False], [False, False]]))
    assert bias[0, 0] == 0 and bias.isfinite().all()
    alpha = torch.softmax(bias + torch.tensor([-50.0, 50.0]), -1)
    assert alpha[0].tolist() == [1.0, 0.0] and alpha.isfinite().all()
