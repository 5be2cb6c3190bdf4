"""Attention of the recommender (Sec. 4.2): relative position bias, similarity buckets, similarity-enhanced mixing."""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from bbqrec.similarity_mix import similarity_mix

Mix = Callable[[Tensor, Tensor], Tensor]


def similarity_buckets(v: Float[Tensor, "B T W"], real: Bool[Tensor, "B T"], buckets: int) -> Int[Tensor, "B T T"]:
    """Eq. 14-15 for every pair of a history: round((cos + 1) / 2 * K), halves up, in 0..K.

    An item with itself is K exactly. Pairs with anything that is not a real item get the neutral row K + 1. In full
    precision, so that training in another reads the rows that decoding will read.
    """
    with torch.autocast(v.device.type, enabled=False):
        unit = F.normalize(v, dim=-1)
        cosine = unit @ unit.transpose(1, 2)
        index = torch.floor((cosine + 1) / 2 * buckets + 0.5).clamp(0, buckets).long()
    same = torch.eye(v.shape[1], dtype=torch.bool, device=v.device)
    index = index.masked_fill(same, buckets)
    return index.masked_fill(~(real[:, :, None] & real[:, None, :]), buckets + 1)


class SimilarityTable(nn.Module):
    """e_sim of Eq. 17: a row per bucket, heads side by side, and a neutral row K + 1 that stays at one.

    What is learned is the difference from one, so that weight decay pulls towards plain attention.
    """

    def __init__(self, buckets: int, heads: int, head_width: int, init: str) -> None:
        super().__init__()
        delta = torch.zeros(buckets + 1, heads * head_width)
        if init == "uniform":
            delta.uniform_(-1.0, -0.99)  # Sec. 5.1, read literally: e_sim in U(0, 0.01)
        self.delta = nn.Parameter(delta)

    @property
    def table(self) -> Float[Tensor, "K2 HC"]:
        return F.pad(1 + self.delta, (0, 0, 0, 1), value=1.0)

    def forward(
        self,
        alpha: Float[Tensor, "B H TL TL"],
        v: Float[Tensor, "B H TL C"],
        buckets: Int[Tensor, "B T T"],
        causal: bool,
    ) -> Float[Tensor, "B H TL C"]:
        """Eq. 17 summed over the keys."""
        return similarity_mix(alpha, v, self.table, buckets, causal)


class Attention(nn.Module):
    """Multi-head attention without biases (T5). Keys and values may be computed ahead and shared by many queries."""

    def __init__(self, d_model: int, heads: int, head_width: int, scale: str) -> None:
        super().__init__()
        self.heads = heads
        inner = heads * head_width
        # "t5" folds the scale into the initial queries; "sqrt" is Eq. 16's 1 / sqrt(D), explicit.
        self.scale = 1.0 if scale == "t5" else 1.0 / math.sqrt(head_width)
        self.q = nn.Linear(d_model, inner, bias=False)
        self.k = nn.Linear(d_model, inner, bias=False)
        self.v = nn.Linear(d_model, inner, bias=False)
        self.o = nn.Linear(inner, d_model, bias=False)
        nn.init.normal_(self.q.weight, std=(d_model * head_width) ** -0.5 if scale == "t5" else d_model**-0.5)
        nn.init.normal_(self.k.weight, std=d_model**-0.5)
        nn.init.normal_(self.v.weight, std=d_model**-0.5)
        nn.init.normal_(self.o.weight, std=inner**-0.5)

    def keys_values(self, x: Float[Tensor, "B K E"]) -> tuple[Float[Tensor, "B H K C"], Float[Tensor, "B H K C"]]:
        return self._split(self.k(x)), self._split(self.v(x))

    def forward(
        self,
        x: Float[Tensor, "B Q E"],
        keys_values: tuple[Float[Tensor, "B H K C"], Float[Tensor, "B H K C"]],
        bias: Float[Tensor, "#B #H #Q K"],
        mix: Mix = torch.matmul,
    ) -> Float[Tensor, "B Q E"]:
        """Softmax attention (Eq. 16) with an additive bias (position and mask); `mix` sums the values (Eq. 17)."""
        k, v = keys_values
        logits = self._split(self.q(x)) @ k.transpose(2, 3) * self.scale + bias  # (B, H, Q, K)
        alpha = torch.softmax(logits, dim=-1)
        return self.o(mix(alpha, v).transpose(1, 2).flatten(2))

    def _split(self, x: Float[Tensor, "B K HC"]) -> Float[Tensor, "B H K C"]:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)


def relative_position_buckets(
    distance: Int[Tensor, "*shape"], bidirectional: bool, buckets: int, max_distance: int
) -> Int[Tensor, "*shape"]:
    """T5's buckets of key - query distances (Raffel et al., JMLR 2020): exact when near, logarithmic when far."""
    if bidirectional:
        buckets //= 2
        offset = (distance > 0).long() * buckets
        distance = distance.abs()
    else:
        offset = torch.zeros_like(distance)
        distance = (-distance).clamp(min=0)
    exact = buckets // 2
    far = torch.log(distance.clamp(min=1).float() / exact) / math.log(max_distance / exact) * (buckets - exact)
    return offset + torch.where(distance < exact, distance, (exact + far.long()).clamp(max=buckets - 1))


class RelativeBias(nn.Module):
    """One learned number per head and distance bucket, added to the logits of every layer of a stack.

    With `recency` the heads start out preferring near keys, the first not at all, the last by `recency` a bucket
    (ALiBi's idea, Press et al., ICLR 2022), instead of having to learn such slopes from zero.
    """

    def __init__(self, heads: int, bidirectional: bool, buckets: int, max_distance: int, recency: float = 0.0) -> None:
        super().__init__()
        self.bidirectional = bidirectional
        self.max_distance = max_distance
        self.table = nn.Embedding(buckets, heads)
        nn.init.normal_(self.table.weight, std=0.02)
        before = buckets // 2 if bidirectional else buckets  # buckets of keys that stand before the query
        slopes = recency * torch.arange(heads) / max(heads - 1, 1)
        with torch.no_grad():
            self.table.weight[:before] -= torch.arange(before)[:, None] * slopes

    def forward(self, queries: Int[Tensor, "Q"], keys: Int[Tensor, "K"]) -> Float[Tensor, "1 H Q K"]:
        index = relative_position_buckets(
            keys[None, :] - queries[:, None], self.bidirectional, self.table.num_embeddings, self.max_distance
        )
        return self.table(index).permute(2, 0, 1)[None]


def mask_bias(visible: Bool[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """0 where a key may be seen, a large negative number elsewhere (finite: a row without keys stays a number)."""
    return (~visible).float() * torch.finfo(torch.float32).min / 2
