"""What models over item IDs share: the vectors of a history's items, losses of the next item, and its scores."""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from bbqrec.data import Batch
from bbqrec.item_features import projected
from bbqrec.schema import PAD, Dataset


class ItemInput(nn.Module):
    """What an encoder reads of an item: its ID embedding or, with features, their concatenation behind a linear map.

    The concatenation is that of GRU4Rec_F and SASRec_F (Sec. 5.1). Predictions are scored by the ID embeddings alone.
    """

    def __init__(self, dataset: Dataset, features: tuple[str, ...], width: int) -> None:
        super().__init__()
        self.ids = nn.Embedding(dataset.num_items, width)
        nn.init.normal_(self.ids.weight, std=0.02)
        self.features = projected(dataset.features, features, width)
        self.fuse = nn.Linear((1 + len(features)) * width, width) if features else None

    def forward(self, history: Int[Tensor, "B T"]) -> Float[Tensor, "B T E"]:
        """Padding reads as the first item: what stands behind the last item of a history is never seen."""
        items = history.clamp(min=0)
        x = self.ids(items)
        if self.fuse is None:
            return x
        return self.fuse(torch.cat((x, *(project(items) for project in self.features.values())), dim=-1))


def next_item_loss(
    h: Float[Tensor, "P E"], items: Float[Tensor, "I E"], target: Int[Tensor, "P"], loss: str
) -> Float[Tensor, ""]:
    """Mean loss of predicting `target` from h by the inner product with item vectors.

    `full`: softmax cross-entropy over all items. `bce`: binary cross-entropy against one uniformly drawn other item
    (SASRec, Eq. 7). `top1`: TOP1 against the other targets of the batch (GRU4Rec, Sec. 3.2.2).
    """
    if loss == "full":
        return F.cross_entropy(h @ items.T, target)
    positive = (h * items[target]).sum(-1)
    if loss == "bce":
        shift = torch.randint(1, len(items), target.shape, device=target.device)
        negative = (h * items[(target + shift) % len(items)]).sum(-1)  # uniform over the other items
        return (F.softplus(-positive) + F.softplus(negative)).mean()
    if loss == "top1":
        scores = h @ items[target].T  # (P, P): the others' targets are negatives
        other = target[:, None] != target[None, :]
        each = torch.sigmoid(scores - positive[:, None]) + torch.sigmoid(scores.square())
        return ((each * other).sum(1) / other.sum(1).clamp(min=1)).mean()
    raise ValueError(f"loss={loss} is none of full, bce, top1")


def counted(batch: Batch) -> tuple[Int[Tensor, "P"], Int[Tensor, "P"], Int[Tensor, "P"]]:
    """Row, place of the state that predicts it, and item of every target that counts."""
    row, place = (batch.visible > 0).nonzero(as_tuple=True)
    return row, batch.visible[row, place] - 1, batch.target[row, place].long()


def last_state(h: Float[Tensor, "B T E"], history: Int[Tensor, "B T"]) -> Float[Tensor, "B E"]:
    """Each row's state at its last item."""
    last = (history != PAD).sum(1) - 1
    return h[torch.arange(len(h), device=h.device), last]
