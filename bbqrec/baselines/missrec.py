"""MISSRec (Wang et al., ACM MM 2023, https://arxiv.org/abs/2308.11175): attention to items and to clustered interests.

Trained from scratch on the data set at hand, with item IDs: the original's pre-training on other domains and what only
it uses (augmentations, the sequence-to-sequence loss) are left out. The model is that of the authors' code for training
from scratch: modalities are summed at the input, one fusion factor serves all items, the softmax runs over all items.

Departures:
- Interests are found once, by Lloyd's k-means of the features behind the untrained adapters. The authors' code repeats
  a mini-batch k-means before every epoch and has density peaks of nearest neighbours (DPC-KNN) as an alternative. An
  interest's vector follows the adapters, as theirs does: the mean of its members, through which no gradient flows.
- A missing text or image is a learned vector, and an interest of its own; theirs is a row of zeros like any other.
- The interest regularisation is averaged over users and over real interests; theirs is summed over the batch, padding
  included. The default `gamma` is their weight times their batch of 512.
- Without images (or text) the cosines with ID and modality are averaged; theirs is the cosine with their sum.
- Width 128 instead of 300. `loss="in-batch"` is the loss of their pre-training, without equal items as negatives.
- Only what is read is computed: the last decoder layer runs at the last item alone.

A history's interests are a set that the encoder sees as a whole, so their states change with every further item: each
training target is an example of its own (`prefix`).
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from bbqrec.baselines.interests import Interests, discover_interests, distinct, interest_regularisation
from bbqrec.baselines.next_item import counted, last_state
from bbqrec.config import TrainingConfig, above_zero, at_least
from bbqrec.data import Batch
from bbqrec.item_features import projected
from bbqrec.schema import PAD, Dataset


@dataclass(frozen=True, kw_only=True)
class MISSRecConfig(TrainingConfig):
    """`interest_ratio` is the number of interests per feature vector (of any modality)."""

    kind: ClassVar[str] = "recommender/missrec"
    version: ClassVar[int] = 1
    joint_losses: ClassVar[tuple[str, ...]] = ("in-batch",)
    features: tuple[str, ...] = ("text", "image")
    loss: Literal["full", "in-batch"] = "full"
    d_model: int = 128
    heads: int = 4
    d_ff: int = 256
    encoder_layers: int = 1
    decoder_layers: int = 1
    temperature: float = 0.07
    gamma: float = 0.05
    """Weight of the interest regularisation."""
    interest_ratio: float = 0.5
    kmeans_iterations: int = 5
    dropout: float = 0.5
    batch_size: int = 512

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(self, 1, "d_model", "heads", "d_ff", "encoder_layers", "decoder_layers", "kmeans_iterations")
        at_least(self, 0, "gamma")
        above_zero(self, "temperature", "interest_ratio")
        if self.interest_ratio > 1:
            raise ValueError(f"interest_ratio={self.interest_ratio} must be at most 1")
        if self.d_model % self.heads:
            raise ValueError(f"heads={self.heads} must divide d_model={self.d_model}")
        if len(self.features) not in (1, 2):
            raise ValueError(f"features={self.features} must be one modality or two")


def directions(ids: Float[Tensor, "C E"], vectors: Float[Tensor, "C M E"]) -> Float[Tensor, "C 1+M E"]:
    """The directions of a candidate's ID embedding and modalities."""
    return F.normalize(torch.cat((ids[:, None], vectors), dim=1), dim=-1)


def fused_logits(
    u: Float[Tensor, "P E"], candidates: Float[Tensor, "C V E"], factor: Float[Tensor, ""], temperature: float
) -> Float[Tensor, "P C"]:
    """(cos(u, id) + M sum_m w_m s_m) / (1 + M) / temperature, where s_m = cos(u, x_m) and w = softmax_m(factor s).

    Each user weighs a candidate's modalities by what they have in common. `candidates` are their V = 1 + M directions.
    Of two modalities the weighted sum is mean(s) + e tanh(factor e) with e = (s_1 - s_2) / 2: two products and no
    tensor (P, C, M).
    """
    u = F.normalize(u, dim=-1) / temperature
    even = u @ candidates.mean(1).T  # (P, C)
    if candidates.shape[1] == 2:
        return even
    e = u @ ((candidates[:, 1] - candidates[:, 2]) / 2).T
    return torch.addcmul(even, e, torch.tanh(factor * temperature * e), value=2 / 3)


class Block(nn.Module):
    """Post-norm attention to one's own sequence, then in the decoder to the interests, then the feed-forward block."""

    def __init__(self, config: MISSRecConfig, decoder: bool) -> None:
        super().__init__()
        width = config.d_model

        def attention() -> nn.MultiheadAttention:
            return nn.MultiheadAttention(width, config.heads, dropout=config.dropout, batch_first=True)

        self.own, self.norm_own = attention(), nn.LayerNorm(width)
        self.cross = attention() if decoder else None
        self.norm_cross = nn.LayerNorm(width) if decoder else None
        self.feed = nn.Sequential(
            nn.Linear(width, config.d_ff), nn.GELU(), nn.Dropout(config.dropout), nn.Linear(config.d_ff, width)
        )
        self.norm_feed = nn.LayerNorm(width)
        self.dropout = nn.Dropout(config.dropout)

    def forward(
        self,
        x: Float[Tensor, "B Q E"],
        keys: Float[Tensor, "B T E"],
        real: Bool[Tensor, "B T"],
        interests: Interests | None = None,
    ) -> Float[Tensor, "B Q E"]:
        x = self.norm_own(x + self._attend(self.own, x, keys, real))
        if interests is not None:
            assert self.cross is not None and self.norm_cross is not None
            x = self.norm_cross(x + self._attend(self.cross, x, *interests))
        return self.norm_feed(x + self.dropout(self.feed(x)))

    def _attend(self, attention: nn.MultiheadAttention, x: Tensor, keys: Tensor, real: Tensor) -> Tensor:
        return self.dropout(attention(x, keys, keys, key_padding_mask=~real, need_weights=False)[0])


class MISSRec(nn.Module):
    """Items of a history attend to each other and to its encoded interests; the last one is compared with candidates.

    `interests` (I, M) numbers the interest of each item's text and image.
    """

    form = "prefix"
    interests: Tensor

    def __init__(self, config: MISSRecConfig, dataset: Dataset) -> None:
        super().__init__()
        self.config = config
        width = config.d_model
        self.ids = nn.Embedding(dataset.num_items, width)
        nn.init.normal_(self.ids.weight, std=0.02)
        self.adapters = projected(dataset.features, config.features, width)
        self.position = nn.Parameter(torch.randn(config.max_history, width) * 0.02)
        self.norm_input, self.dropout = nn.LayerNorm(width), nn.Dropout(config.dropout)
        self.encoder = nn.ModuleList(Block(config, False) for _ in range(config.encoder_layers))
        self.decoder = nn.ModuleList(Block(config, True) for _ in range(config.decoder_layers))
        self.norm_encoder, self.norm_decoder = nn.LayerNorm(width), nn.LayerNorm(width)
        self.fusion_factor = nn.Parameter(torch.zeros(()))
        present = torch.from_numpy(np.stack([dataset.features[name].present for name in config.features], axis=1))
        chance = torch.Generator().manual_seed(int(torch.randint(2**62, ())))
        found = discover_interests(
            self.modality_vectors(), present, config.interest_ratio, config.kmeans_iterations, chance
        )
        self.register_buffer("interests", found)

    def loss(self, batch: Batch) -> tuple[Float[Tensor, ""], int]:
        row, _, target = counted(batch)
        z = self.modality_vectors()
        u, regularisation = self.users(batch.history[row], z)
        candidates = directions(self.ids.weight, z)
        if self.config.loss == "in-batch":
            items, target = target.unique(return_inverse=True)  # an item is never its own negative
            candidates = candidates[items]
        logits = fused_logits(u, candidates, self.fusion_factor, self.config.temperature)
        return F.cross_entropy(logits, target) + self.config.gamma * regularisation, len(row)

    def scores(self, history: Int[Tensor, "B T"]) -> Float[Tensor, "B I"]:
        z = self.modality_vectors()
        u, _ = self.users(history, z)
        return fused_logits(u, directions(self.ids.weight, z), self.fusion_factor, self.config.temperature)

    def item_vectors(self) -> Float[Tensor, "I E"]:
        """Mean directions: the candidates without what depends on the user."""
        return directions(self.ids.weight, self.modality_vectors()).mean(1)

    def modality_vectors(self) -> Float[Tensor, "I M E"]:
        """Every item's features behind their adapters."""
        items = torch.arange(self.ids.num_embeddings, device=self.ids.weight.device)
        return torch.stack([adapter(items) for adapter in self.adapters.values()], dim=1)

    def users(
        self, history: Int[Tensor, "B T"], z: Float[Tensor, "I M E"]
    ) -> tuple[Float[Tensor, "B E"], Float[Tensor, ""]]:
        """What each history's last item has gathered, and the regularisation of the interests it saw."""
        interests = self.encoded_interests(history, z)
        real, items = history != PAD, history.clamp(min=0)
        x = F.embedding(items, self.ids.weight + z.sum(1)) + self.position[: history.shape[1]]  # (B, T, E)
        x = self.dropout(self.norm_input(x))
        for block in self.decoder[:-1]:
            x = block(x, x, real, interests)
        last = last_state(x, history)[:, None]  # (B, 1, E)
        u = self.norm_decoder(self.decoder[-1](last, x, real, interests))[:, 0]
        return u, interest_regularisation(interests)

    def encoded_interests(self, history: Int[Tensor, "B T"], z: Float[Tensor, "I M E"]) -> Interests:
        """The distinct interests of a history's items, after they have seen each other."""
        numbers = self.interests[history.clamp(min=0)].masked_fill((history == PAD)[..., None], PAD)
        numbers = distinct(numbers.flatten(1))  # (B, K)
        real = numbers != PAD
        x = self.interest_vectors(z)[numbers.clamp(min=0)]
        for block in self.encoder:
            x = block(x, x, real)
        return Interests(self.norm_encoder(x), real)

    @torch.no_grad()
    def interest_vectors(self, z: Float[Tensor, "I M E"]) -> Float[Tensor, "N E"]:
        """The mean of each interest's members; zero for one without any."""
        member = self.interests.flatten()
        size = torch.bincount(member)[:, None]
        return z.new_zeros(len(size), z.shape[-1]).index_add_(0, member, z.flatten(0, 1)) / size.clamp(min=1)
