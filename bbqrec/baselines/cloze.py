"""Cloze training (BERT4Rec, Sun et al., CIKM 2019, Sec. 3.6): hidden items of a history are predicted from the rest."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from bbqrec.schema import PAD

States = Callable[[Tensor, Tensor], Tensor]
"""An encoder: (history (B, T), hidden (B, T)) -> (B, T, E), which reads nothing of a hidden item but its place."""


class Cloze(nn.Module):
    """Loss, scores and output head (Eq. 7) around an encoder: softmax(norm(GELU(h W + b)) E^T + b_O) over all items."""

    def __init__(self, num_items: int, width: int, hidden_share: float, last_share: float) -> None:
        super().__init__()
        self.hidden_share, self.last_share = hidden_share, last_share
        self.head = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.LayerNorm(width))
        self.bias = nn.Parameter(torch.zeros(num_items))

    def loss(
        self, states: States, history: Int[Tensor, "B T"], items: Float[Tensor, "I E"]
    ) -> tuple[Float[Tensor, ""], int]:
        """Eq. 8 over freshly hidden items, and their number."""
        hidden = hide(history, self.hidden_share, self.last_share)
        target = history[hidden].long()
        return F.cross_entropy(self._logits(states(history, hidden)[hidden], items), target), len(target)

    def scores(self, states: States, history: Int[Tensor, "B T"], items: Float[Tensor, "I E"]) -> Float[Tensor, "B I"]:
        """A score for every item as the next one: that of a hidden item behind the last."""
        longer, hidden = with_a_hidden_item(history)
        return self._logits(states(longer, hidden)[hidden], items)

    def _logits(self, h: Float[Tensor, "P E"], items: Float[Tensor, "I E"]) -> Float[Tensor, "P I"]:
        return self.head(h) @ items.T + self.bias


def hide(history: Int[Tensor, "B T"], share: float, last: float) -> Bool[Tensor, "B T"]:
    """Items to hide: `share` of each row at random, rounded, at least one and of several never all.

    In a row out of 1 / `last` it is the last item alone, as in prediction. Draws from torch's global generator.
    """
    real = history != PAD
    length = real.sum(1, keepdim=True)  # (B, 1)
    drawn = torch.rand(history.shape, device=history.device).masked_fill(~real, 2.0)  # padding comes last
    count = (length * share).round().clamp(max=length - 1).clamp(min=1)
    at_random = drawn.argsort(1).argsort(1) < count
    only_last = torch.arange(history.shape[1], device=history.device) == length - 1
    return torch.where(torch.rand(length.shape, device=history.device) < last, only_last, at_random)


def with_a_hidden_item(history: Int[Tensor, "B T"]) -> tuple[Int[Tensor, "B T1"], Bool[Tensor, "B T1"]]:
    """The histories with one more item behind the last, and where it is. As it is hidden, any item will do."""
    longer = F.pad(history, (0, 1), value=PAD)
    places = torch.arange(longer.shape[1], device=history.device)
    hidden = places == (history != PAD).sum(1, keepdim=True)
    return longer.masked_fill(hidden, 0), hidden
