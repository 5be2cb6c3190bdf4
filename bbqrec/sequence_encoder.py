"""A self-attention encoder of item vectors, both ways or causal (SASRec, Kang & McAuley, ICDM 2018): f(.) of Eq. 11."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

Fuse = Callable[[Tensor], Tensor]


class SequenceEncoder(nn.Module):
    """Vectors of a history, oldest first -> h_t, which has seen positions 1..t only. Padding stands on the right.

    Told which places are real, h_t has seen all of these and no other, and positions count from the last of them.
    """

    def __init__(
        self, width: int, layers: int, heads: int, max_length: int, dropout: float, inner: int | None = None
    ) -> None:
        super().__init__()
        self.position = nn.Parameter(torch.randn(max_length, width) * 0.02)
        self.layers = nn.ModuleList(SequenceLayer(width, heads, dropout, inner) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Float[Tensor, "B T W"], real: Bool[Tensor, "B T"] | None = None) -> Float[Tensor, "B T W"]:
        position = (
            self.position[: x.shape[1]] if real is None else F.embedding(places_from_the_end(real), self.position)
        )
        x = self.dropout(x + position)
        for layer in self.layers:
            x = layer(x, real)
        return self.norm(x)


def places_from_the_end(real: Bool[Tensor, "B T"]) -> Int[Tensor, "B T"]:
    """0 at each row's last real place, 1 before it, ...; 0 again behind it."""
    places = torch.arange(real.shape[1], device=real.device)
    return (real.sum(1, keepdim=True) - 1 - places).clamp(min=0)


class SequenceLayer(nn.Module):
    """Pre-norm attention and a feed-forward block, of the same width inside unless told, each with a residual."""

    def __init__(self, width: int, heads: int, dropout: float, inner: int | None = None) -> None:
        super().__init__()
        self.heads = heads
        inner = width if inner is None else inner
        self.norm_attention = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.norm_feed = nn.LayerNorm(width)
        self.feed = nn.Sequential(nn.Linear(width, inner), nn.ReLU(), nn.Dropout(dropout), nn.Linear(inner, width))
        self.dropout = nn.Dropout(dropout)

    @torch.no_grad()
    def start_as_average(self) -> None:
        """Values and output start as identities: what a place gathers is then a mean of what others hold."""
        width = self.out.weight.shape[0]
        nn.init.eye_(self.out.weight)
        self.qkv.weight[2 * width :] = torch.eye(width)

    def forward(
        self, x: Float[Tensor, "B T W"], real: Bool[Tensor, "B T"] | None = None, fuse: Fuse | None = None
    ) -> Float[Tensor, "B T W"]:
        """Causal without `real`, else over all real places. Queries and keys are read from `fuse` of the normed x."""
        normed = self.norm_attention(x)
        if fuse is None:
            qkv = self.qkv(normed)
        else:
            width = 2 * x.shape[-1]  # of queries and keys, which stand before the values
            weight, bias = self.qkv.weight, self.qkv.bias
            qk, v = F.linear(fuse(normed), weight[:width], bias[:width]), F.linear(normed, weight[width:], bias[width:])
            qkv = torch.cat((qk, v), dim=-1)
        q, k, v = qkv.unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        keys = None if real is None else real[:, None, None, :]
        mixed = F.scaled_dot_product_attention(q, k, v, keys, is_causal=real is None)  # (B, H, T, W / H)
        x = x + self.dropout(self.out(mixed.transpose(1, 2).flatten(2)))
        return x + self.dropout(self.feed(self.norm_feed(x)))
