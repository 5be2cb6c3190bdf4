"""Trie-constrained beam search over a next-scores function, and the rank of an item in its result."""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from bbqrec.schema import UNRANKED
from bbqrec.semantic_ids import Trie

NextScores = Callable[[int, Tensor, Tensor], Tensor]
"""(level, parents (B, W), codes (B, W, M)) -> log-probabilities (B, W, M, N) of that level's codes, or the decoder's
states (B, W, E) where nodes have vectors.

At level l > 0, beam w continues beam `parents[:, w]` of the call before with the codes `codes[:, w]`; at level 0 there
is one empty beam, and `codes` has no rows to read.
"""


@dataclass(frozen=True, kw_only=True)
class DeviceTrie:
    """The arrays of a `Trie` as tensors on one device."""

    codes: tuple[Int[Tensor, "_ M"], ...]
    first: tuple[Int[Tensor, "_"], ...]
    log_popularity: tuple[Float[Tensor, "_"], ...]
    """log(1 + popularity) of each node, in double precision."""
    items: Int[Tensor, "I"]
    leaf: Int[Tensor, "I"]
    place: Int[Tensor, "I"]

    @classmethod
    def of(cls, trie: Trie, device: torch.device | str) -> "DeviceTrie":
        def move(array: np.ndarray) -> Tensor:
            return torch.from_numpy(np.ascontiguousarray(array, dtype=np.int64)).to(device)

        return cls(
            codes=tuple(map(move, trie.codes)),
            first=tuple(map(move, trie.first)),
            log_popularity=tuple(move(below).double().log1p() for below in trie.popularity),
            items=move(trie.items),
            leaf=move(trie.leaf),
            place=move(trie.place),
        )


@dataclass(frozen=True, kw_only=True)
class Beams:
    """IDs in order of score: nodes of the trie's last depth and their log-probabilities; -inf marks an empty place."""

    nodes: Int[Tensor, "B W"]
    scores: Float[Tensor, "B W"]


def beam_search(
    next_scores: NextScores,
    trie: DeviceTrie,
    batch: int,
    beam: int,
    priors: Sequence[Float[Tensor, "_"]] | None = None,
    vectors: Sequence[Float[Tensor, "_ E"]] | None = None,
) -> Beams:
    """The best `beam` IDs of each of `batch` users. Every one of them exists; none occurs twice.

    The score of a child is its parent's plus the sum of its codes' log-probabilities (one code per component).
    With `priors`, one value per node and depth, that sum plus the child's prior is normalised over the children that
    exist (objective `children`). With `vectors`, one per node and depth, the product of the state and the child's
    vector takes the place of the sum.
    Only existing children are scored. With `beam` at least the number of IDs this is exhaustive.
    Raises FloatingPointError for scores that are not numbers: training has diverged.
    """
    device = trie.items.device
    start = torch.zeros(batch, 1, dtype=torch.long, device=device)
    found = next_scores(0, start, trie.codes[0][start])[:, 0]  # (B, M, N) or (B, E)
    scores = _gather_sum(found, trie.codes[0]) if vectors is None else found @ vectors[0].T  # (B, n)
    if priors is not None:
        scores = torch.log_softmax(scores + priors[0], dim=1)
    if bool(torch.isnan(scores).any()):
        raise FloatingPointError("the scores of the first level are not numbers")
    scores, nodes = scores.topk(min(beam, scores.shape[1]), dim=1)
    parents = start.expand_as(nodes)
    for level in range(1, len(trie.codes)):
        found = next_scores(level, parents, trie.codes[level - 1][nodes])  # (B, W, M, N) or (B, W, E)
        children, origin, valid = _children(trie.first[level - 1], nodes, scores)  # each (B, C)
        rows = torch.arange(batch, device=device)[:, None]
        if vectors is None:
            codes = trie.codes[level][children]  # (B, C, M)
            parts = (found[rows, origin, m, codes[:, :, m]] for m in range(codes.shape[2]))
            gained = functools.reduce(torch.add, parts)
        else:
            gained = (found[rows, origin] * vectors[level][children]).sum(-1)
        if priors is not None:
            gained = gained + priors[level][children]
            gained = _among_siblings(gained.masked_fill(~valid, -torch.inf), origin, nodes.shape[1])
        total = (scores.gather(1, origin) + gained).masked_fill(~valid, -torch.inf)
        scores, best = total.topk(min(beam, total.shape[1]), dim=1)
        nodes, parents = children.gather(1, best), origin.gather(1, best)
    return Beams(nodes=nodes, scores=scores)


def _gather_sum(log_probs: Float[Tensor, "B M N"], codes: Int[Tensor, "n M"]) -> Float[Tensor, "B n"]:
    return sum(
        (log_probs[:, m].index_select(1, codes[:, m]) for m in range(1, codes.shape[1])),
        start=log_probs[:, 0].index_select(1, codes[:, 0]),
    )


def _among_siblings(gained: Float[Tensor, "B C"], origin: Int[Tensor, "B C"], beams: int) -> Float[Tensor, "B C"]:
    """log-softmax of the children of each beam."""
    top = gained.new_full((len(gained), beams), -torch.inf).scatter_reduce(1, origin, gained, "amax")
    below = gained - top.gather(1, origin).clamp(min=torch.finfo(gained.dtype).min)
    return below - torch.zeros_like(top).scatter_add(1, origin, below.exp()).gather(1, origin).log()


def _children(
    first: Int[Tensor, "n1"], nodes: Int[Tensor, "B W"], scores: Float[Tensor, "B W"]
) -> tuple[Tensor, Tensor, Tensor]:
    """All children of each user's live beams side by side: node, beam of origin, and whether the place is taken."""
    begin = first[nodes]
    count = (first[nodes + 1] - begin) * torch.isfinite(scores)
    end = count.cumsum(1)
    place = torch.arange(int(end[:, -1].max()), device=nodes.device).expand(len(nodes), -1).contiguous()
    origin = torch.searchsorted(end, place, right=True)
    valid = origin < nodes.shape[1]
    origin = origin.clamp(max=nodes.shape[1] - 1)
    child = begin.gather(1, origin) + place - (end - count).gather(1, origin)
    return torch.where(valid, child, 0), origin, valid


def target_ranks(beams: Beams, trie: DeviceTrie, targets: Int[Tensor, "B"]) -> Int[Tensor, "B"]:
    """Rank of each target, from 1, in the list of items that the beams spell; `UNRANKED` if it is not there.

    Items of one ID stand together, most popular first.
    """
    alive = torch.isfinite(beams.scores)
    sizes = (trie.first[-1][beams.nodes + 1] - trie.first[-1][beams.nodes]) * alive
    hit = (beams.nodes == trie.leaf[targets][:, None]) & alive
    before = (sizes.cumsum(1) - sizes).gather(1, hit.int().argmax(1, keepdim=True))[:, 0]
    return torch.where(hit.any(1), before + trie.place[targets] + 1, UNRANKED)


def item_lists(beams: Beams, trie: DeviceTrie, k: int) -> list[list[tuple[int, float]]]:
    """The first k (item, score) of each user, in the order that `target_ranks` counts."""
    lists = []
    for nodes, scores in zip(beams.nodes.tolist(), beams.scores.tolist(), strict=True):
        ranked: list[tuple[int, float]] = []
        for node, score in zip(nodes, scores, strict=True):
            if score == -torch.inf or len(ranked) >= k:
                break
            span = slice(int(trie.first[-1][node]), int(trie.first[-1][node + 1]))
            ranked += [(item, score) for item in trie.items[span].tolist()]
        lists.append(ranked[:k])
    return lists
