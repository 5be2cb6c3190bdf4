"""The vectors that score the nodes of a trie where a node stands for all IDs below it (`node_vectors="ids"`).

The vector of an ID at a level is the sum of the head vectors of its codes from that level on; the vector of a node is
the mean of the vectors of the IDs below it. What the IDs' earlier codes would add is the same for all children of a
node and would cancel in their softmax. At the last level this is the sum of the node's own codes.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from bbqrec.decoding import DeviceTrie


class Terms(NamedTuple):
    """What the vectors of a depth add up, node by node: `weight` of the head vector of (level, component, `code`)."""

    table: Int[Tensor, "t"]
    """level x M + component."""
    code: Int[Tensor, "t"]
    weight: Float[Tensor, "t"]
    begin: Int[Tensor, "n"]
    """The first term of each node."""


class NodeVectors:
    """The terms of every node of a trie, gathered once; `at` adds them up for the heads of the moment."""

    def __init__(self, trie: DeviceTrie) -> None:
        ids = _ids_below(trie)
        self.depths = [_terms(trie, ids, depth) for depth in range(len(trie.codes))]

    def at(self, depth: int, heads: Float[Tensor, "L E MN"], components: int) -> Float[Tensor, "n E"]:
        """The vectors of the nodes of one depth, in full precision."""
        terms, rows = self.depths[depth], heads.transpose(1, 2).flatten(0, 1)  # (L M N, E)
        where = terms.table * (heads.shape[2] // components) + terms.code
        return F.embedding_bag(where, rows, terms.begin, mode="sum", per_sample_weights=terms.weight.to(rows))


def _terms(trie: DeviceTrie, ids: list[Float[Tensor, "_"]], depth: int) -> Terms:
    """A node's own codes with weight 1; of each level below, the codes of its descendants by their share of the IDs."""
    device, components = trie.items.device, trie.codes[0].shape[1]
    owner = torch.arange(len(trie.codes[depth]), device=device)  # the ancestor at `depth` of each node of a level
    parts: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []
    for level in range(depth, len(trie.codes)):
        if level > depth:
            first = trie.first[level - 1]
            owner = owner.repeat_interleave(first[1:] - first[:-1])
        share = ids[level] / ids[depth][owner]
        for component in range(components):
            table = torch.full_like(owner, level * components + component)
            parts.append((owner, table, trie.codes[level][:, component], share))
    owners, table, code, weight = (torch.cat(part) for part in zip(*parts, strict=True))
    order = torch.argsort(owners, stable=True)
    counts = torch.bincount(owners, minlength=len(trie.codes[depth]))
    return Terms(table[order], code[order], weight[order], counts.cumsum(0) - counts)


def _ids_below(trie: DeviceTrie) -> list[Float[Tensor, "_"]]:
    """How many IDs lie below each node, depth by depth."""
    below = [torch.ones(len(trie.codes[-1]), dtype=torch.float64, device=trie.items.device)]
    for first in reversed(trie.first[:-1]):
        ends = F.pad(below[0].cumsum(0), (1, 0))
        below.insert(0, ends[first[1:]] - ends[first[:-1]])
    return below
