"""f(.) of Eq. 11 against the loops, and its causality."""

import torch
from reference_models import sequence_encoder, weights_of

from bbqrec.sequence_encoder import SequenceEncoder

B, T, W, LAYERS, HEADS, LONGEST = 2, 4, 6, 3, 2, 9


class Holder(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.sequence_encoder = SequenceEncoder(W, LAYERS, HEADS, LONGEST, 0.4)
        for parameter in self.parameters():  # away from zero biases, unit norms
            torch.nn.init.normal_(parameter, std=0.5)


def test_equals_the_loops():
    holder = Holder().double().eval()
    x = torch.randn(B, T, W, dtype=torch.float64)
    found = holder.sequence_encoder(x).detach()
    for b in range(B):
        expected = sequence_encoder(weights_of(holder), x[b].numpy(), LAYERS, HEADS)
        torch.testing.assert_close(found[b], torch.from_numpy(expected), atol=1e-10, rtol=0)


def test_h_t_has_seen_the_items_up_to_t_only():
    encoder = Holder().eval().sequence_encoder
    x = torch.randn(B, T, W)
    before = encoder(x)
    for t in range(T):
        changed = x.clone()
        changed[:, t, 0] += 1
        moved = (encoder(changed) - before).abs().amax((0, 2)) > 1e-6
        assert moved.tolist() == [s >= t for s in range(T)]
