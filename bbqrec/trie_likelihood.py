"""The likelihood of an existing ID: Eq. 1 with every softmax over the children that exist (objective `children`)."""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from bbqrec.data import Batch
from bbqrec.decoding import DeviceTrie
from bbqrec.node_vectors import NodeVectors
from bbqrec.recommender import Recommender


class TrieLikelihood:
    """-log P(ID of the target | history) in nats per target; the probabilities of all existing IDs sum to one.

    A model with `node_vectors="ids"` scores a node by its vector, any other by its codes.
    The model's temperature divides the scores of all children, so that it acts on the codes and on popularity alike.
    """

    def __init__(self, trie: DeviceTrie) -> None:
        self.trie = trie
        self.nodes = [trie.leaf]
        """`nodes[l][i]`: the node of item i at depth l."""
        for first in reversed(trie.first[:-1]):
            self.nodes.insert(0, torch.searchsorted(first, self.nodes[0], right=True) - 1)
        self.vectors: NodeVectors | None = None

    def __call__(self, model: Recommender, batch: Batch) -> Float[Tensor, ""]:
        targets = batch.target[batch.visible > 0]
        states = model.states(batch) / model.config.temperature  # (P, L, E)
        priors = model.priors(self.trie.log_popularity)
        assert priors is not None
        priors = [prior / model.config.temperature for prior in priors]
        roots = self._roots(model)
        loss = F.cross_entropy(states[:, 0] @ roots.T + priors[0], self.nodes[0][targets])
        for level in range(1, len(self.nodes)):
            loss = loss + self._below(model, level, states[:, level], targets, priors[level])
        return loss

    def _roots(self, model: Recommender) -> Float[Tensor, "n E"]:
        """A vector per node of the first depth: its score is one product."""
        if model.config.node_vectors == "ids":
            return self._of_ids(model, 0)
        heads = model.heads[0].T  # (M N, E)
        shift = torch.arange(model.components, device=heads.device) * (len(heads) // model.components)
        return F.embedding(self.trie.codes[0] + shift, heads).sum(1)

    def _below(
        self,
        model: Recommender,
        level: int,
        states: Float[Tensor, "P E"],
        targets: Int[Tensor, "P"],
        prior: Float[Tensor, "_"],
    ) -> Float[Tensor, ""]:
        """One level's share; an only child costs nothing."""
        first, parents = self.trie.first[level - 1], self.nodes[level - 1][targets]
        count = first[parents + 1] - first[parents]
        several = count > 1
        if not bool(several.any()):
            return states.new_zeros(())
        count, begin = count[several], first[parents[several]]
        place = torch.arange(int(count.max()), device=count.device)
        exists = place < count[:, None]  # (S, C)
        children = torch.where(exists, begin[:, None] + place, 0)  # (S, C)
        if model.config.node_vectors == "ids":
            scores = _products(states[several], self._of_ids(model, level), children, exists)
        else:
            codes = self.trie.codes[level][children]  # (S, C, M)
            logits = model.code_logits(states[several, None], level)[:, 0]  # (S, M, N)
            scores = logits.gather(2, codes.transpose(1, 2)).sum(1)
        scores = scores + F.embedding(children, prior[:, None])[..., 0]
        scores = scores.masked_fill(~exists, -torch.inf)
        return F.cross_entropy(scores, self.nodes[level][targets[several]] - begin, reduction="sum") / len(targets)

    def _of_ids(self, model: Recommender, depth: int) -> Float[Tensor, "n E"]:
        self.vectors = self.vectors or NodeVectors(self.trie)
        return self.vectors.at(depth, model.heads, model.components)


def _products(
    states: Float[Tensor, "S E"], vectors: Float[Tensor, "n E"], nodes: Int[Tensor, "S C"], exists: Bool[Tensor, "S C"]
) -> Float[Tensor, "S C"]:
    """Each state times the vectors of its nodes, as far as they exist; 0 elsewhere.

    Pair by pair: most states have few nodes, a few have many.
    """
    row = torch.arange(len(states), device=states.device)[:, None].expand_as(exists)[exists]
    found = (F.embedding(row, states) * F.embedding(nodes[exists], vectors)).sum(-1)
    return torch.zeros_like(exists, dtype=found.dtype).masked_scatter(exists, found)
