"""BERT4Rec (Sun et al., CIKM 2019, https://arxiv.org/abs/1904.06690).

Departures: norms stand before each block and behind the last instead of behind each; ReLU in the feed-forward blocks;
no dropout of attention weights; training rows are hidden anew every epoch instead of ten times ahead. Positions count
from the end, and attention's values and outputs start as identities: without this the model learns far more slowly.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from bbqrec.baselines.cloze import Cloze
from bbqrec.baselines.next_item import ItemInput
from bbqrec.config import TrainingConfig, above_zero, at_least, share
from bbqrec.data import Batch
from bbqrec.schema import PAD, Dataset
from bbqrec.sequence_encoder import SequenceEncoder


@dataclass(frozen=True, kw_only=True)
class BERT4RecConfig(TrainingConfig):
    """Sizes of the encoder, and what training hides."""

    kind: ClassVar[str] = "recommender/bert4rec"
    version: ClassVar[int] = 1
    d_model: int = 128
    layers: int = 2
    heads: int = 2
    d_ff: int = 512
    dropout: float = 0.2
    hidden_share: float = 0.3
    """Share of a history's items that training hides."""
    last_share: float = 0.3
    """Share of the training rows of which only the last item is hidden."""

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(self, 1, "d_model", "layers", "heads", "d_ff")
        above_zero(self, "hidden_share")
        share(self, "hidden_share", "last_share")
        if self.d_model % self.heads:
            raise ValueError(f"heads={self.heads} must divide d_model={self.d_model}")


class BERT4Rec(nn.Module):
    """A bidirectional encoder of a history in which some items are hidden behind one learned vector."""

    form = "cloze"

    def __init__(self, config: BERT4RecConfig, dataset: Dataset) -> None:
        super().__init__()
        self.input = ItemInput(dataset, (), config.d_model)
        self.mask = nn.Parameter(torch.randn(config.d_model) * 0.02)
        sizes = (config.d_model, config.layers, config.heads, config.max_history + 1)  # history and target
        self.encoder = SequenceEncoder(*sizes, config.dropout, config.d_ff)
        for layer in self.encoder.layers:
            layer.start_as_average()  # type: ignore[operator]
        self.cloze = Cloze(dataset.num_items, config.d_model, config.hidden_share, config.last_share)

    def loss(self, batch: Batch) -> tuple[Float[Tensor, ""], int]:
        return self.cloze.loss(self.states, batch.history, self.item_vectors())

    def scores(self, history: Int[Tensor, "B T"]) -> Float[Tensor, "B I"]:
        return self.cloze.scores(self.states, history, self.item_vectors())

    def states(self, history: Int[Tensor, "B T"], hidden: Bool[Tensor, "B T"]) -> Float[Tensor, "B T E"]:
        x = torch.where(hidden[..., None], self.mask, self.input(history))
        return self.encoder(x, history != PAD)

    def item_vectors(self) -> Float[Tensor, "I E"]:
        """What predictions are compared with, before the bias of each item."""
        return self.input.ids.weight
