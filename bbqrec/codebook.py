"""The residual codebook of Sec. 4.1.2: one per level, shared by all components (or, w/o U, one per component)."""

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

DISTANCES_IN_FLIGHT = 2**26
"""Points times centres of one look-up of many: bounds the memory."""

Choice = Callable[[Tensor, Tensor], Tensor]
"""Residuals (R, M, D) and the level's codebooks (G, N, D) -> codes (R, M)."""


class Quantized(NamedTuple):
    """Eq. 5-7 for a batch: codes, the residual z^l and the codeword c^l of every level, and q = sum_l c^l."""

    codes: Int[Tensor, "R L M"]
    residuals: Float[Tensor, "R L M D"]
    codewords: Float[Tensor, "R L M D"]
    q: Float[Tensor, "R M D"]


class ResidualCodebook(nn.Module):
    """`codebooks` (L, G, N, D): G = 1 group that every component shares, or a group for each component.

    `usage` counts, since the last `restart`, how often each component chose each code.
    """

    usage: Tensor

    def __init__(self, levels: int, codes: int, width: int, components: int, shared: bool) -> None:
        super().__init__()
        self.shared = shared
        groups = 1 if shared else components
        self.codebooks = nn.Parameter(torch.randn(levels, groups, codes, width) * 0.1)
        self.register_buffer("usage", torch.zeros(levels, components, codes))

    def forward(self, z: Float[Tensor, "R M D"], last: Choice | None = None) -> Quantized:
        """Nearest code of each level's residual (Eq. 5, 6). The gradient of `q` reaches the codewords only.

        `last` chooses at the last level in place of `nearest`.
        """
        residual, taken = z, []
        for level, books in enumerate(self.codebooks):
            choose = nearest if last is None or level + 1 < len(self.codebooks) else last
            codes = choose(residual.detach(), books.detach())  # (R, M)
            codewords = self._lookup(books, codes)
            taken.append((codes, residual, codewords))
            # The residual subtracts a constant: each level's loss trains its own codebook only.
            residual = residual - codewords.detach()
        codes, residuals, codewords = (torch.stack(part, dim=1) for part in zip(*taken, strict=True))
        if self.training:
            self._count(codes)
        return Quantized(codes, residuals, codewords, codewords.sum(1))

    def _lookup(self, books: Float[Tensor, "G N D"], codes: Int[Tensor, "R M"]) -> Float[Tensor, "R M D"]:
        groups, size, _ = books.shape
        shift = torch.arange(codes.shape[1], device=codes.device) % groups * size
        return F.embedding(codes + shift, books.flatten(0, 1))

    @torch.no_grad()
    def _count(self, codes: Int[Tensor, "R L M"]) -> None:
        self.usage += F.one_hot(codes, self.usage.shape[-1]).sum(0).to(self.usage.dtype)

    @torch.no_grad()
    def initialise(self, z: Float[Tensor, "R M D"], iterations: int, generator: torch.Generator) -> None:
        """k-means of the pooled residuals (per component where codebooks are not shared), level by level."""
        residual = z
        for books in self.codebooks:
            pools = residual.flatten(0, 1)[None] if self.shared else residual.transpose(0, 1)
            for group, pool in enumerate(pools):
                books[group] = kmeans(pool, books.shape[1], iterations, generator)
            residual = residual - self._lookup(books, nearest(residual, books))

    @torch.no_grad()
    def restart(self, residuals: Float[Tensor, "R L M D"], generator: torch.Generator) -> list[tuple[int, int, Tensor]]:
        """Replace codes unused since the last restart by random residuals of the batch; forget the counts.

        Returns (level, group, codes) of what was replaced, so that the optimiser can forget their moments too.
        """
        replaced = []
        used = self.usage.sum(1, keepdim=True) if self.shared else self.usage
        for level, books in enumerate(self.codebooks):
            for group in range(books.shape[0]):
                dead = (used[level, group] == 0).nonzero().flatten()
                pool = residuals[:, level].flatten(0, 1) if self.shared else residuals[:, level, group]
                pick = torch.randint(len(pool), (len(dead),), generator=generator)
                books[group, dead] = pool[pick.to(pool.device)]
                if len(dead):
                    replaced.append((level, group, dead))
        self.usage.zero_()
        return replaced

    def per_component(self) -> Float[Tensor, "L M N D"]:
        """The codebook that each component reads at each level."""
        return self.codebooks.detach().expand(-1, self.usage.shape[1], -1, -1)


def straight_through(z: Float[Tensor, "R M D"], q: Float[Tensor, "R M D"]) -> Float[Tensor, "R M D"]:
    """The value of q with the gradient of z (van den Oord et al., 2017)."""
    return z + (q - z).detach()


def nearest(z: Float[Tensor, "R M D"], books: Float[Tensor, "G N D"]) -> Int[Tensor, "R M"]:
    """Eq. 5: index of the closest code of the component's codebook; the lowest index wins a tie."""
    if books.shape[0] == 1:
        flat = z.flatten(0, 1)
        return (books[0].square().sum(-1) - 2 * flat @ books[0].T).argmin(-1).view(z.shape[:2])
    distance = books.square().sum(-1)[:, None] - 2 * torch.bmm(z.transpose(0, 1), books.transpose(1, 2))  # (M, R, N)
    return distance.argmin(-1).T


def nearest_centre(points: Float[Tensor, "P D"], centres: Float[Tensor, "k D"]) -> Int[Tensor, "P"]:
    """`nearest` for one large codebook, so many points at a time that the distances stay in memory."""
    parts = points.split(max(1, DISTANCES_IN_FLIGHT // len(centres)))
    return torch.cat([nearest(part[:, None], centres[None])[:, 0] for part in parts])


def kmeans(points: Float[Tensor, "P D"], k: int, iterations: int, generator: torch.Generator) -> Float[Tensor, "k D"]:
    """Lloyd's algorithm from k random points, repeated if there are fewer; empty clusters keep their centre."""
    order = torch.randperm(len(points), generator=generator).to(points.device)
    centres = points[order[torch.arange(k, device=points.device) % len(points)]].clone()
    for _ in range(iterations):
        assigned = nearest_centre(points, centres)
        sums = torch.zeros_like(centres).index_add_(0, assigned, points)
        counts = torch.bincount(assigned, minlength=k)[:, None]
        centres = torch.where(counts > 0, sums / counts.clamp(min=1), centres)
    return centres


def perplexity(usage: Float[Tensor, "*lead N"]) -> Float[Tensor, "*lead"]:
    """exp of the entropy of the usage: the number of codes in effective use, between 1 and N."""
    share = usage / usage.sum(-1, keepdim=True).clamp(min=1)
    return torch.exp(-(share * torch.log(share.clamp(min=1e-12))).sum(-1))
