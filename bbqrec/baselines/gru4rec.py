"""GRU4Rec (Hidasi et al., ICLR 2016, https://arxiv.org/abs/1511.06939), and GRU4Rec_F with text and image.

Departures: full cross-entropy by default (`loss="top1"` is the paper's, against the other targets of the batch); items
are embedded, and scored by the product of the mapped state with the same embeddings; whole histories are trained on, as
no session here is too long for back-propagation. GRU4Rec_F concatenates each item's embedding and projected features
at the input (Sec. 5.1 of the BBQRec paper).
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

from jaxtyping import Float, Int
from torch import Tensor, nn

from bbqrec.baselines.next_item import ItemInput, counted, last_state, next_item_loss
from bbqrec.config import TrainingConfig, at_least
from bbqrec.data import Batch
from bbqrec.schema import Dataset


@dataclass(frozen=True, kw_only=True)
class GRU4RecConfig(TrainingConfig):
    """`features` are the modalities of the input: none is GRU4Rec, text and image are GRU4Rec_F."""

    kind: ClassVar[str] = "recommender/gru4rec"
    version: ClassVar[int] = 1
    joint_losses: ClassVar[tuple[str, ...]] = ("top1",)
    features: tuple[str, ...] = ()
    loss: Literal["full", "top1"] = "full"
    d_model: int = 128
    hidden: int = 128
    layers: int = 1
    dropout: float = 0.4

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(self, 1, "d_model", "hidden", "layers")


class GRU4Rec(nn.Module):
    """A recurrent encoder of a history; items are scored by its last state's product with their vectors."""

    form = "packed"

    def __init__(self, config: GRU4RecConfig, dataset: Dataset) -> None:
        super().__init__()
        self.kind = config.loss
        self.input = ItemInput(dataset, config.features, config.d_model)
        self.dropout = nn.Dropout(config.dropout)
        between = config.dropout if config.layers > 1 else 0.0  # torch warns where there is no between
        self.gru = nn.GRU(config.d_model, config.hidden, config.layers, batch_first=True, dropout=between)
        self.out = nn.Linear(config.hidden, config.d_model)

    def loss(self, batch: Batch) -> tuple[Float[Tensor, ""], int]:
        row, place, target = counted(batch)
        h = self.out(self.states(batch.history)[row, place])  # (P, E)
        return next_item_loss(h, self.item_vectors(), target, self.kind), len(target)

    def scores(self, history: Int[Tensor, "B T"]) -> Float[Tensor, "B I"]:
        return self.out(last_state(self.states(history), history)) @ self.item_vectors().T

    def states(self, history: Int[Tensor, "B T"]) -> Float[Tensor, "B T C"]:
        return self.gru(self.dropout(self.input(history)))[0]

    def item_vectors(self) -> Float[Tensor, "I E"]:
        """What predictions are compared with."""
        return self.input.ids.weight
