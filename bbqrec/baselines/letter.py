"""LETTER (Wang et al., CIKM 2024, https://arxiv.org/abs/2405.07314) as LETTER-TIGER: a tokenizer for TIGER's generator.

Departures: the RQ-VAE is the one that `tiger` has here (normalised latents, one hidden layer); it learns from the items
that occur in training, in hundreds of passes, not 20,000. A learned linear map stands between the quantized vector and
the SASRec vector, since their widths need not be equal. Clusters of codes differ in size by at most one. Items that
collide get other last codes by a transport, as in the authors' code, but all items of a prefix at once, where the code
moves one group of colliding items after the other. What is SASRec's and what the transport's: `sasrec.py`,
`uniform_assignment.py`.
"""

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from bbqrec.baselines.uniform_assignment import even_kmeans, log_transport, uniform_assignment
from bbqrec.codebook import Quantized, ResidualCodebook, straight_through
from bbqrec.config import QuantizerConfig, RecommenderConfig, StageConfig, above_zero, at_least
from bbqrec.losses import residual_quantization
from bbqrec.quantizer import Quantizer
from bbqrec.schema import Codes, Dataset


@dataclass(frozen=True, kw_only=True)
class LetterQuantizerConfig(StageConfig):
    """Stage 1. What QuantizerConfig has too means the same; the paper's mu, alpha and beta are `alpha`, `collaborative`
    and `diversity`."""

    kind: ClassVar[str] = "quantizer/letter"
    version: ClassVar[int] = 1
    levels: int = 4
    codes: int = 256
    width: int = 128
    hidden: int = 512
    alpha: float = 0.25
    collaborative: float = 0.1
    """Weight of the alignment with the teacher's item vectors: of the values that the authors search, the one of their
    script for Amazon Beauty."""
    diversity: float = 1e-4
    """Weight of the pull between codes of a cluster."""
    clusters: int = 10
    """Of the codes of a level, made anew every epoch."""
    epsilon: float = 0.003
    """Entropy of the transport that assigns last codes, in units of half the range of the distances."""
    sinkhorn_iterations: int = 50
    kmeans_iterations: int = 10
    restart_dead_codes: bool = True
    epochs: int = 40
    passes: int = 10
    """Over the items, per epoch."""
    batch_items: int = 1024
    learning_rate: float = 1e-3
    weight_decay: float = 1e-4

    def __post_init__(self) -> None:
        at_least(self, 1, "levels", "codes", "width", "hidden", "clusters", "sinkhorn_iterations", "kmeans_iterations")
        at_least(self, 1, "epochs", "passes", "batch_items")
        at_least(self, 0, "alpha", "collaborative", "diversity", "weight_decay")
        above_zero(self, "epsilon", "learning_rate")
        if self.codes < 2 * self.clusters:
            raise ValueError(f"clusters={self.clusters} of codes={self.codes} leave a code alone in its cluster")

    @property
    def components(self) -> tuple[str, ...]:
        return ("text",)

    @property
    def modalities(self) -> tuple[str, ...]:
        return self.components

    @property
    def rq_vae(self) -> QuantizerConfig:
        """The tokenizer that the three regularisers are added to."""
        return QuantizerConfig(
            components=self.components,
            levels=self.levels,
            codes=self.codes,
            width=self.width,
            hidden=self.hidden,
            alpha=self.alpha,
            disentangle=False,
            contrastive=False,
            unquantized_share=0.0,
        )


@dataclass(frozen=True, kw_only=True)
class LetterRecommenderConfig(RecommenderConfig):
    """Stage 2: TIGER's generator with a temperature in its training loss."""

    kind: ClassVar[str] = "recommender/letter"
    similarity: bool = False
    temperature: float = 0.7
    """Divides the logits in training alone (ranking-guided generation loss): below 1, hard negatives weigh more."""

    def __post_init__(self) -> None:
        super().__post_init__()
        above_zero(self, "temperature")


class LetterLosses(NamedTuple):
    """The terms of the tokenizer's objective, unweighted but for alpha inside L_RQ."""

    recon: Float[Tensor, ""]
    rq: Float[Tensor, ""]
    collaborative: Float[Tensor, ""]
    diversity: Float[Tensor, ""]


def total(terms: LetterLosses, collaborative: float, diversity: float) -> Float[Tensor, ""]:
    """L_LETTER = L_Sem + alpha L_CF + beta L_Div."""
    return terms.recon + terms.rq + collaborative * terms.collaborative + diversity * terms.diversity


def collaborative_loss(q: Float[Tensor, "R E"], h: Float[Tensor, "R E"]) -> Float[Tensor, ""]:
    """L_CF: softmax cross-entropy of <q_i, h_j> over the items j of the batch, averaged over the items i."""
    return F.cross_entropy(q @ h.T, torch.arange(len(q), device=q.device))


def diversity_loss(
    book: Float[Tensor, "N D"], chosen: Int[Tensor, "R"], positive: Int[Tensor, "R"]
) -> Float[Tensor, ""]:
    """L_Div of one level: softmax cross-entropy of <e_c, e_j> over the codes j other than the item's own code c."""
    alone = torch.eye(len(book), dtype=torch.bool, device=book.device)
    logits = (book @ book.T).masked_fill(alone, -torch.inf)
    return F.cross_entropy(F.embedding(chosen, logits), positive)


def others_of_cluster(cluster: Int[Tensor, "N"], chosen: Int[Tensor, "R"]) -> Int[Tensor, "R"]:
    """For each chosen code another one of its cluster, drawn uniformly."""
    order = torch.argsort(cluster, stable=True)
    size = torch.bincount(cluster)
    first = size.cumsum(0) - size
    place = torch.empty_like(order)
    place[order] = torch.arange(len(order), device=order.device)
    own, begin = cluster[chosen], first[cluster[chosen]]
    shift = 1 + torch.randint(2**31 - 1, chosen.shape, device=chosen.device) % (size[own] - 1)
    return order[begin + (place[chosen] - begin + shift) % size[own]]


class LetterQuantizer(nn.Module):
    """The tokenizer. `teacher` (I, E) are a trained SASRec's item vectors, `clusters` (L, N) each code's cluster."""

    teacher: Tensor
    clusters: Tensor

    def __init__(self, config: LetterQuantizerConfig, dataset: Dataset, teacher: Float[Tensor, "I E"]) -> None:
        super().__init__()
        self.config = config
        self.rq_vae = Quantizer(config.rq_vae, dataset.num_items, dataset.features)
        self.align = nn.Linear(config.width, teacher.shape[1], bias=False)
        self.register_buffer("teacher", teacher)
        self.register_buffer("clusters", torch.zeros(config.levels, config.codes, dtype=torch.long))

    @property
    def codebook(self) -> ResidualCodebook:
        return self.rq_vae.codebook

    def forward(self, items: Int[Tensor, "R"]) -> tuple[LetterLosses, Quantized]:
        """The terms for a batch of distinct items, whose last codes are about uniform."""
        z = self.rq_vae.encode(items)  # (R, 1, D)
        quantized = self.codebook(z, self._uniform)
        q = straight_through(z, quantized.q)  # (R, 1, D)
        losses = LetterLosses(
            recon=self.rq_vae.reconstruct(items, q, {}),
            rq=residual_quantization(quantized.residuals, quantized.codewords, self.config.alpha),
            collaborative=collaborative_loss(self.align(q[:, 0]), self.teacher[items]),
            diversity=self.diversify(quantized.codes[:, :, 0]),
        )
        return losses, quantized

    def _uniform(self, residual: Float[Tensor, "R 1 D"], book: Float[Tensor, "1 N D"]) -> Int[Tensor, "R 1"]:
        distance = torch.cdist(residual[:, 0], book[0]).square()
        return log_transport(distance, self.config.epsilon, self.config.sinkhorn_iterations).argmax(1, keepdim=True)

    def diversify(self, codes: Int[Tensor, "R L"]) -> Float[Tensor, ""]:
        """L_Div summed over the levels, as L_RQ is."""
        levels = zip(self.codebook.codebooks[:, 0], self.clusters, codes.T, strict=True)
        terms = [diversity_loss(book, own, others_of_cluster(cluster, own)) for book, cluster, own in levels]
        return torch.stack(terms).sum()

    @torch.no_grad()
    def cluster(self, generator: torch.Generator) -> None:
        """Constrained k-means of each level's codes."""
        config = self.config
        for level, book in enumerate(self.codebook.codebooks[:, 0]):
            steps = (config.kmeans_iterations, config.epsilon, config.sinkhorn_iterations)
            self.clusters[level] = even_kmeans(book, config.clusters, *steps, generator)

    @torch.no_grad()
    def codes(self, num_items: int) -> Codes:
        """Codes and v of the whole catalogue: nearest codes, but no two items of a prefix share a last code unless the
        prefix has more items than there are codes."""
        books = self.codebook.codebooks[:, 0]
        raw, residuals = self.rq_vae.catalogue(
            num_items, lambda found: (found.codes[:, :, 0], found.residuals[:, -1, 0])
        )
        codes = self._without_collisions(raw, torch.from_numpy(residuals), books[-1].cpu())
        chosen = torch.from_numpy(codes).to(books.device)
        vectors = torch.stack([book[own] for book, own in zip(books, chosen.T, strict=True)]).sum(0)
        return Codes(
            components=self.config.components,
            codes=codes[:, :, None],
            vectors=vectors.cpu().numpy(),
            codebooks=self.codebook.per_component().cpu().numpy(),
            raw=raw[:, :, None],
        )

    def _without_collisions(
        self, raw: Int[np.ndarray, "I L"], residuals: Float[Tensor, "I D"], book: Float[Tensor, "N D"]
    ) -> Int[np.ndarray, "I L"]:
        """`raw` with new last codes for the items of each prefix under which items collide."""
        root = np.zeros((len(raw), 1), dtype=raw.dtype)
        _, prefix = np.unique(np.hstack((root, raw[:, :-1])), axis=0, return_inverse=True)
        _, whole, count = np.unique(raw, axis=0, return_inverse=True, return_counts=True)
        codes = raw.copy()
        order = np.argsort(prefix, kind="stable")
        groups = np.split(order, np.flatnonzero(np.diff(prefix[order])) + 1)
        for items in groups:
            if (count[whole[items]] > 1).any():
                how = (self.config.epsilon, self.config.sinkhorn_iterations)
                codes[items, -1] = uniform_assignment(residuals[torch.from_numpy(items)], book, *how).numpy()
        return codes
