"""NOVA-BERT (Liu et al., AAAI 2021, https://arxiv.org/abs/2103.03578): text and image steer the attention only.

Queries and keys are read from a gated sum of item, text, image and position; values from the items alone, so that every
layer stays in the space of the ID embeddings. Training and prediction are BERT4Rec's (`cloze.py`), and so are the
departures named there. Hidden items hide their text and image, too. Each side stream is normalised, so that none drowns
the others before the gate has learned anything.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from bbqrec.baselines.bert4rec import BERT4RecConfig
from bbqrec.baselines.cloze import Cloze
from bbqrec.data import Batch
from bbqrec.item_features import projected
from bbqrec.schema import PAD, Dataset
from bbqrec.sequence_encoder import SequenceLayer, places_from_the_end


@dataclass(frozen=True, kw_only=True)
class NovaBERTConfig(BERT4RecConfig):
    """BERT4Rec's, and the modalities of the side information."""

    kind: ClassVar[str] = "recommender/nova-bert"
    version: ClassVar[int] = 1
    features: tuple[str, ...] = ("text", "image")


class NovaLayer(nn.Module):
    """Non-invasive attention (Sec. 3.4): Q and K from the fused streams, V from the items alone."""

    def __init__(self, width: int, heads: int, dropout: float, inner: int) -> None:
        super().__init__()
        self.gate = nn.Linear(width, 1, bias=False)
        self.layer = SequenceLayer(width, heads, dropout, inner)
        self.layer.start_as_average()

    def forward(
        self, x: Float[Tensor, "B T E"], side: Float[Tensor, "B T S E"], real: Bool[Tensor, "B T"]
    ) -> Float[Tensor, "B T E"]:
        return self.layer(x, real, lambda normed: self.fused(torch.cat((normed[:, :, None], side), dim=2)))

    def fused(self, streams: Float[Tensor, "B T S1 E"]) -> Float[Tensor, "B T E"]:
        """The gating fusor (Sec. 3.5): sum_i G_i f_i with G = softmax(F W_F) over the streams."""
        return (torch.softmax(self.gate(streams), dim=2) * streams).sum(2)


class NovaBERT(nn.Module):
    """A bidirectional encoder of items whose attention also sees text, image and position."""

    form = "cloze"

    def __init__(self, config: NovaBERTConfig, dataset: Dataset) -> None:
        super().__init__()
        width = config.d_model
        self.ids = nn.Embedding(dataset.num_items, width)
        nn.init.normal_(self.ids.weight, std=0.02)
        self.mask = nn.Parameter(torch.randn(width) * 0.02)
        self.features = projected(dataset.features, config.features, width)
        self.feature_masks = nn.Parameter(torch.randn(len(self.features), width) * 0.02)
        self.position = nn.Parameter(torch.randn(config.max_history + 1, width) * 0.02)  # history and target
        self.side_norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(len(self.features) + 1))
        self.dropout = nn.Dropout(config.dropout)
        sizes = (width, config.heads, config.dropout, config.d_ff)
        self.layers = nn.ModuleList(NovaLayer(*sizes) for _ in range(config.layers))
        self.norm = nn.LayerNorm(width)
        self.cloze = Cloze(dataset.num_items, width, config.hidden_share, config.last_share)

    def loss(self, batch: Batch) -> tuple[Float[Tensor, ""], int]:
        return self.cloze.loss(self.states, batch.history, self.item_vectors())

    def scores(self, history: Int[Tensor, "B T"]) -> Float[Tensor, "B I"]:
        return self.cloze.scores(self.states, history, self.item_vectors())

    def states(self, history: Int[Tensor, "B T"], hidden: Bool[Tensor, "B T"]) -> Float[Tensor, "B T E"]:
        items = history.clamp(min=0)
        x = self.dropout(torch.where(hidden[..., None], self.mask, self.ids(items)))
        side = self.side_information(items, hidden, history != PAD)
        for layer in self.layers:
            x = layer(x, side, history != PAD)
        return self.norm(x)

    def side_information(
        self, items: Int[Tensor, "B T"], hidden: Bool[Tensor, "B T"], real: Bool[Tensor, "B T"]
    ) -> Float[Tensor, "B T S E"]:
        """Each modality's stream, of hidden items a learned vector, and the positions from the end."""
        read = [project(items) for project in self.features.values()]
        streams = [torch.where(hidden[..., None], mask, x) for mask, x in zip(self.feature_masks, read, strict=True)]
        streams.append(F.embedding(places_from_the_end(real), self.position))
        normed = [norm(x) for norm, x in zip(self.side_norms, streams, strict=True)]
        return self.dropout(torch.stack(normed, dim=2))

    def item_vectors(self) -> Float[Tensor, "I E"]:
        """What predictions are compared with, before the bias of each item."""
        return self.ids.weight
