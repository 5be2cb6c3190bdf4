"""f(.) of Eq. 11 against the loops, and what each position sees."""

import numpy as np
import pytest
import torch
from reference_models import sequence_encoder, sequence_layer, weights_of

from bbqrec.sequence_encoder import SequenceEncoder, SequenceLayer, places_from_the_end

B, T, W, LAYERS, HEADS, LONGEST, INNER = 2, 4, 6, 3, 2, 9, 5


class Holder(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.sequence_encoder = SequenceEncoder(W, LAYERS, HEADS, LONGEST, 0.4, INNER)
        for parameter in self.parameters():  # away from zero biases, unit norms
            torch.nn.init.normal_(parameter, std=0.5)


@pytest.mark.parametrize("causal", [True, False])
def test_equals_the_loops(causal):
    holder = Holder().double().eval()
    x = torch.randn(B, T, W, dtype=torch.float64)
    found = holder.sequence_encoder(x, None if causal else torch.ones(B, T, dtype=torch.bool)).detach()
    for b in range(B):
        expected = sequence_encoder(weights_of(holder), x[b].numpy(), LAYERS, HEADS, causal)
        torch.testing.assert_close(found[b], torch.from_numpy(expected), atol=1e-10, rtol=0)


def test_queries_and_keys_may_be_read_from_something_else():
    holder = Holder().double().eval()
    x, added = torch.randn(B, T, W, dtype=torch.float64), torch.randn(T, W, dtype=torch.float64)
    layer, real = holder.sequence_encoder.layers[1], torch.ones(B, T, dtype=torch.bool)
    found = layer(x, real, lambda normed: normed * 2 + added).detach().numpy()
    for b in range(B):
        name = "sequence_encoder.layers.1"
        expected = sequence_layer(
            weights_of(holder), name, x[b].numpy(), HEADS, False, lambda normed: normed * 2 + added.numpy()
        )
        np.testing.assert_allclose(found[b], expected, atol=1e-10)


def test_h_t_has_seen_the_items_up_to_t_only():
    encoder = Holder().eval().sequence_encoder
    x = torch.randn(B, T, W)
    before = encoder(x)
    for t in range(T):
        changed = x.clone()
        changed[:, t, 0] += 1
        moved = (encoder(changed) - before).abs().amax((0, 2)) > 1e-6
        assert moved.tolist() == [s >= t for s in range(T)]


def test_told_the_real_places_every_position_has_seen_these_and_no_other():
    encoder = Holder().eval().sequence_encoder
    x, real = torch.randn(B, T, W), torch.tensor([[True] * 3 + [False], [True] * 4])
    before = encoder(x, real)
    for t in range(T):
        changed = x.clone()
        changed[:, t, 0] += 1
        moved = (encoder(changed, real) - before).abs().amax(2) > 1e-6
        for b in range(B):
            assert moved[b].tolist() == [bool(real[b, t]) or s == t for s in range(T)]


def test_positions_count_from_the_last_real_place():
    real = torch.tensor([[True] * 4, [True, True, False, False]])
    assert places_from_the_end(real).tolist() == [[3, 2, 1, 0], [1, 0, 0, 0]]


def test_a_layer_may_start_as_the_average_of_what_is_real():
    torch.manual_seed(3)
    layer = SequenceLayer(W, HEADS, 0.0, INNER).double().eval()
    layer.start_as_average()
    with torch.no_grad():
        layer.qkv.bias.zero_()
        layer.qkv.weight[: 2 * W] = 0  # equal attention
        for part in (layer.out.bias, layer.feed[3].weight, layer.feed[3].bias):
            part.zero_()
        x, real = torch.randn(1, T, W, dtype=torch.float64), torch.tensor([[True] * 3 + [False]])
        gathered = layer(x, real) - x
    expected = torch.nn.functional.layer_norm(x[0, :3], (W,)).mean(0)
    torch.testing.assert_close(gathered[0], expected.expand(T, W))
