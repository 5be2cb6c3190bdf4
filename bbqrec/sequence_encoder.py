"""A causal self-attention encoder of item vectors (SASRec, Kang & McAuley, ICDM 2018): f(.) of Eq. 11."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


class SequenceEncoder(nn.Module):
    """Vectors of a history, oldest first -> h_t, which has seen positions 1..t only. Padding stands on the right."""

    def __init__(self, width: int, layers: int, heads: int, max_length: int, dropout: float) -> None:
        super().__init__()
        self.position = nn.Parameter(torch.randn(max_length, width) * 0.02)
        self.layers = nn.ModuleList(SequenceLayer(width, heads, dropout) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Float[Tensor, "B T W"]) -> Float[Tensor, "B T W"]:
        x = self.dropout(x + self.position[: x.shape[1]])
        for layer in self.layers:
            x = layer(x)
        return self.norm(x)


class SequenceLayer(nn.Module):
    """Pre-norm causal attention and a feed-forward block of the same width, each with a residual connection."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.norm_attention = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.norm_feed = nn.LayerNorm(width)
        self.feed = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Dropout(dropout), nn.Linear(width, width))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Float[Tensor, "B T W"]) -> Float[Tensor, "B T W"]:
        q, k, v = self.qkv(self.norm_attention(x)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)  # (B, H, T, W / H)
        x = x + self.dropout(self.out(mixed.transpose(1, 2).flatten(2)))
        return x + self.dropout(self.feed(self.norm_feed(x)))
