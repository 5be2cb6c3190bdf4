"""SASRec (Kang & McAuley, ICDM 2018, https://arxiv.org/abs/1808.09781), and SASRec_F with text and image.

Departures: full cross-entropy by default (`loss="bce"` is the paper's, one sampled negative per position); norms stand
before each block and behind the last. SASRec_F concatenates each item's embedding and projected features at the input
(Sec. 5.1 of the BBQRec paper).
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

from jaxtyping import Float, Int
from torch import Tensor, nn

from bbqrec.baselines.next_item import ItemInput, counted, last_state, next_item_loss
from bbqrec.config import TrainingConfig, at_least
from bbqrec.data import Batch
from bbqrec.schema import Dataset
from bbqrec.sequence_encoder import SequenceEncoder


@dataclass(frozen=True, kw_only=True)
class SASRecConfig(TrainingConfig):
    """`features` are the modalities of the input: none is SASRec, text and image are SASRec_F."""

    kind: ClassVar[str] = "recommender/sasrec"
    version: ClassVar[int] = 1
    features: tuple[str, ...] = ()
    loss: Literal["full", "bce"] = "full"
    d_model: int = 128
    layers: int = 2
    heads: int = 2
    dropout: float = 0.4

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(self, 1, "d_model", "layers", "heads")
        if self.d_model % self.heads:
            raise ValueError(f"heads={self.heads} must divide d_model={self.d_model}")


class SASRec(nn.Module):
    """A causal self-attention encoder of a history; items are scored by its last state's product with their vectors."""

    form = "packed"

    def __init__(self, config: SASRecConfig, dataset: Dataset) -> None:
        super().__init__()
        self.kind = config.loss
        self.input = ItemInput(dataset, config.features, config.d_model)
        self.encoder = SequenceEncoder(config.d_model, config.layers, config.heads, config.max_history, config.dropout)

    def loss(self, batch: Batch) -> tuple[Float[Tensor, ""], int]:
        row, place, target = counted(batch)
        h = self.encoder(self.input(batch.history))[row, place]  # (P, E)
        return next_item_loss(h, self.item_vectors(), target, self.kind), len(target)

    def scores(self, history: Int[Tensor, "B T"]) -> Float[Tensor, "B I"]:
        return last_state(self.encoder(self.input(history)), history) @ self.item_vectors().T

    def item_vectors(self) -> Float[Tensor, "I E"]:
        """What predictions are compared with."""
        return self.input.ids.weight
