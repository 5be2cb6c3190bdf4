"""VQ-Rec (Hou et al., WWW 2023, https://arxiv.org/abs/2210.12316): items are the codes of their text.

Optimised product quantization turns an item's text features into one code per digit; the item's vector is the mean of
its codes' embeddings, which are learned from behaviour. A self-attention encoder reads the vectors of a history, and
items are scored by the cosine with its last state over a temperature.

Departures: trained from scratch on the data set at hand, without pre-training on other domains and the permutation of
codes that follows it. Codes are fitted on the text of all items, not of those that occur in training only. An item
without text, which the paper does not have, gets a learned vector of its own: sharing one, such items could not be
told apart. Code embeddings start so wide that an item's vector starts as wide as an ID embedding elsewhere. The encoder
is SASRec's here: norms before each block and behind the last, none at the input, feed-forward blocks of width d_model.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from bbqrec.baselines.next_item import counted, last_state
from bbqrec.baselines.product_quantization import product_codes, sizes
from bbqrec.config import TrainingConfig, above_zero, at_least
from bbqrec.data import Batch
from bbqrec.losses import sequence_to_item
from bbqrec.schema import Dataset
from bbqrec.sequence_encoder import SequenceEncoder


@dataclass(frozen=True, kw_only=True)
class VQRecConfig(TrainingConfig):
    """`features` names the one modality that is quantized.

    `digits` and `codes` are upper bounds: see `product_quantization` for what small data sets get.
    """

    kind: ClassVar[str] = "recommender/vq-rec"
    version: ClassVar[int] = 1
    joint_losses: ClassVar[tuple[str, ...]] = ("contrastive",)
    features: tuple[str, ...] = ("text",)
    loss: Literal["full", "contrastive"] = "full"
    """`full`: cross-entropy over all items, the paper's fine-tuning. `contrastive`: over the distinct targets of the
    batch and one semi-synthetic item per target, its pre-training."""
    digits: int = 32
    codes: int = 256
    opq_iterations: int = 50
    temperature: float = 0.07
    synthetic_share: float = 0.75
    """Share of the digits of a semi-synthetic item that are drawn at random."""
    d_model: int = 128
    layers: int = 2
    heads: int = 2
    dropout: float = 0.4

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(self, 1, "digits", "opq_iterations", "d_model", "layers", "heads")
        at_least(self, 2, "codes")
        at_least(self, 0, "synthetic_share")
        above_zero(self, "temperature")
        if self.synthetic_share > 1:
            raise ValueError(f"synthetic_share={self.synthetic_share} must be at most 1")
        if len(self.features) != 1:
            raise ValueError(f"features={self.features} must name one modality")
        if self.d_model % self.heads:
            raise ValueError(f"heads={self.heads} must divide d_model={self.d_model}")


class VQRec(nn.Module):
    """Item codes, the table of their embeddings, and the encoder of a history.

    `codes` are rows of the table: digit l's code n is row l N + n. Behind these an item without text has a row of its
    own, which stands at all its digits. -1 before they are computed, which the first use does: codes that come with a
    checkpoint are never computed again.
    """

    form = "packed"
    codes: Tensor
    coded: Tensor

    def __init__(self, config: VQRecConfig, dataset: Dataset) -> None:
        super().__init__()
        self.config = config
        self.features = dataset.features[config.features[0]]
        values, present = self.features.values, torch.from_numpy(self.features.present.copy())
        self.size = sizes(int(present.sum()), values.shape[1], config.digits, config.codes)
        self.register_buffer("codes", torch.full((dataset.num_items, self.size.digits), -1))
        self.register_buffer("coded", present)
        rows = self.size.digits * self.size.codes
        self.table = nn.Embedding(rows + int((~present).sum()), config.d_model)
        nn.init.normal_(self.table.weight[:rows], std=0.02 * self.size.digits**0.5)
        nn.init.normal_(self.table.weight[rows:], std=0.02)
        self.encoder = SequenceEncoder(config.d_model, config.layers, config.heads, config.max_history, config.dropout)

    def loss(self, batch: Batch) -> tuple[Float[Tensor, ""], int]:
        row, place, target = counted(batch)
        vectors = self.vectors()
        h = self.encoder(_taken(vectors, batch.history))[row, place]  # (P, E)
        tau = self.config.temperature
        if self.config.loss == "full":
            return sequence_to_item(h, vectors, target, tau), len(target)
        distinct, index = target.unique(return_inverse=True)
        false = self._pooled(self.semi_synthetic(self.codes[target]))  # (P, E)
        return contrastive(h, vectors[distinct], index, false, self.coded[target], tau), len(target)

    def scores(self, history: Int[Tensor, "B T"]) -> Float[Tensor, "B I"]:
        vectors = self.vectors()
        h = last_state(self.encoder(_taken(vectors, history)), history)
        return F.normalize(h, dim=-1) @ F.normalize(vectors, dim=-1).T / self.config.temperature

    def item_vectors(self) -> Float[Tensor, "I E"]:
        """What predictions are compared with."""
        return F.normalize(self.vectors(), dim=-1)

    def vectors(self) -> Float[Tensor, "I E"]:
        """What the encoder reads of each item: the mean of its codes' embeddings."""
        if self.codes[0, 0] < 0:
            self._encode()
        return self._pooled(self.codes)

    def semi_synthetic(self, codes: Int[Tensor, "P L"]) -> Int[Tensor, "P L"]:
        """Each digit is replaced, with the probability `synthetic_share`, by a random code of that digit."""
        first = torch.arange(self.size.digits, device=codes.device) * self.size.codes
        drawn = torch.randint(self.size.codes, codes.shape, device=codes.device) + first
        return torch.where(torch.rand(codes.shape, device=codes.device) < self.config.synthetic_share, drawn, codes)

    def _pooled(self, codes: Int[Tensor, "R L"]) -> Float[Tensor, "R E"]:
        return F.embedding_bag(codes, self.table.weight, mode="mean")

    def _encode(self) -> None:
        """Computes the codes, from the features alone."""
        digits, codes, _ = self.size
        raw = self.features.values[self.features.present]
        found = product_codes(raw, self.config.digits, self.config.codes, self.config.opq_iterations).codes
        lacking = torch.arange(digits * codes, self.table.num_embeddings)
        self.codes[self.coded] = (found + torch.arange(digits) * codes).to(self.codes.device)
        self.codes[~self.coded] = lacking[:, None].expand(-1, digits).to(self.codes.device)


def contrastive(
    h: Float[Tensor, "P E"],
    v: Float[Tensor, "C E"],
    target: Int[Tensor, "P"],
    false: Float[Tensor, "P E"],
    real: Bool[Tensor, "P"],
    tau: float,
) -> Float[Tensor, ""]:
    """Mean cross-entropy of cos(h, .) / tau over the candidates v, of which `target` is right, and the row of `false`.

    Rows that are not `real` have no false item.
    """
    h = F.normalize(h, dim=-1)
    others = h @ F.normalize(v, dim=-1).T  # (P, C)
    own = (h * F.normalize(false, dim=-1)).sum(-1, keepdim=True).masked_fill(~real[:, None], -torch.inf)
    return F.cross_entropy(torch.cat((others, own), dim=1) / tau, target)


def _taken(vectors: Float[Tensor, "I E"], history: Int[Tensor, "B T"]) -> Float[Tensor, "B T E"]:
    """Padding reads as the first item: what stands behind the last item of a history is never seen."""
    return F.embedding(history.clamp(min=0), vectors)
