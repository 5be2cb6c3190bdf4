"""The recommender as a next-scores function: encoder once per user, cached keys and values, beams that share them."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from bbqrec.attention import Attention
from bbqrec.decoding import Beams, DeviceTrie, beam_search
from bbqrec.node_vectors import NodeVectors
from bbqrec.recommender import Recommender
from bbqrec.schema import PAD


class CachedScores:
    """A `NextScores` for one batch of histories; call it level by level, without gradients.

    The cross-attention keys and values of a user are computed once and shared by the beams; each beam keeps the
    self-attention keys and values of its own prefix. `states` leaves the scores to vectors of the nodes.
    """

    def __init__(self, model: Recommender, history: Int[Tensor, "B T"], states: bool = False) -> None:
        self.model, self.states = model, states
        memory = model.encode(history)  # (B, T L, E)
        lengths = (history != PAD).sum(1, keepdim=True)  # (B, 1)
        self.cross_bias = model.cross_bias(lengths, history.shape[1])  # (B, #H, 1, T L)
        self.cross = [block.cross_attention.keys_values(memory) for block in model.decoder]
        self.first = model.first(memory, lengths)  # (B, 1, E)
        self.own: list[tuple[Tensor, Tensor]] = []

    def __call__(
        self, level: int, parents: Int[Tensor, "B W"], codes: Int[Tensor, "B W M"]
    ) -> Float[Tensor, "B W M N"] | Float[Tensor, "B W E"]:
        model = self.model
        rows, beams = parents.shape
        if level == 0:
            x = self.first.expand(rows, beams, -1)  # (B, W, E)
        else:
            x = model.after(self.first, model.embedding.one_level(level - 1, codes))
        steps = torch.arange(level + 1, device=x.device)
        bias = model.decoder_bias(steps[-1:], steps)[0, :, 0].T  # (l + 1, H): a beam sees its whole prefix
        places = torch.arange(rows, device=x.device)[:, None] * (self.own[0][0].shape[1] // rows if level else 1)
        origin = (parents + places).flatten()  # (B W,)
        for number, block in enumerate(model.decoder):
            attention, normed = block.self_attention, block.norm_self(x).flatten(0, 1)  # (B W, E)
            assert isinstance(attention, Attention)
            before = self.own[number] if level else (None, None)
            keys = _extended(before[0], origin, attention.k(normed))  # (l + 1, B W, H C)
            values = _extended(before[1], origin, attention.v(normed))
            self.own[number : number + 1] = [(keys, values)]
            x = x + attention.o(_attended(attention, normed, keys, values, bias)).view_as(x)
            x = x + block.cross_attention(block.norm_cross(x), self.cross[number], self.cross_bias)
            x = block.feed(x)
        x = model.norm_decoder(x)
        if self.states:
            return x
        logits = model.code_logits(x.flatten(0, 1)[:, None], level)  # (B W, 1, M, N)
        return torch.log_softmax(logits.view(rows, beams, *logits.shape[2:]), dim=-1)


def _extended(
    past: Float[Tensor, "l BV HC"] | None, origin: Int[Tensor, "BW"], new: Float[Tensor, "BW HC"]
) -> Float[Tensor, "_ BW HC"]:
    """The cache of every beam's parent, and behind it what the beam adds: written once, without a copy in between."""
    if past is None:
        return new[None]
    longer = new.new_empty(len(past) + 1, *new.shape)
    torch.index_select(past, 1, origin, out=longer[:-1])
    longer[-1] = new
    return longer


def _attended(
    attention: Attention,
    x: Float[Tensor, "BW E"],
    keys: Float[Tensor, "k BW HC"],
    values: Float[Tensor, "k BW HC"],
    bias: Float[Tensor, "k H"],
) -> Float[Tensor, "BW HC"]:
    """Eq. 16 of one query per beam over its own few positions, where a product per pair beats a batched one."""
    heads = (attention.heads, -1)
    query = attention.q(x).unflatten(-1, heads)  # (B W, H, C)
    logits = (keys.unflatten(-1, heads) * query).sum(-1) * attention.scale + bias[:, None]  # (l + 1, B W, H)
    alpha = torch.softmax(logits, dim=0)[..., None]
    return (alpha * values.unflatten(-1, heads)).sum(0).flatten(1)


@torch.no_grad()
def generate(
    model: Recommender,
    trie: DeviceTrie,
    history: Int[Tensor, "B T"],
    beam: int,
    vectors: Sequence[Float[Tensor, "_ E"]] | None = None,
) -> Beams:
    """The best `beam` IDs for each history. The model must be in evaluation mode.

    `vectors` is what `scored_nodes` gives for the model as it is: who generates several times computes them once.
    """
    vectors = scored_nodes(model, trie) if vectors is None else vectors
    next_scores = CachedScores(model, history, states=vectors is not None)
    return beam_search(next_scores, trie, len(history), beam, model.priors(trie.log_popularity), vectors)


@torch.no_grad()
def scored_nodes(model: Recommender, trie: DeviceTrie) -> list[Float[Tensor, "_ E"]] | None:
    """The vectors of all nodes, depth by depth; None for a model that scores their codes."""
    if model.config.node_vectors == "codes":
        return None
    nodes = NodeVectors(trie)
    return [nodes.at(depth, model.heads, model.components) for depth in range(model.levels)]
