"""The recommender as a next-scores function: encoder once per user, cached keys and values, beams that share them."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from bbqrec.attention import mask_bias
from bbqrec.decoding import Beams, DeviceTrie, beam_search
from bbqrec.recommender import Recommender
from bbqrec.schema import PAD


class CachedScores:
    """A `NextScores` for one batch of histories; call it level by level.

    The cross-attention keys and values of a user are computed once and shared by the beams; each beam keeps the
    self-attention keys and values of its own prefix.
    """

    def __init__(self, model: Recommender, history: Int[Tensor, "B T"]) -> None:
        self.model = model
        memory = model.encode(history)  # (B, T L, E)
        lengths = (history != PAD).sum(1, keepdim=True)  # (B, 1)
        self.cross_bias = model.cross_bias(lengths, history.shape[1])  # (B, #H, 1, T L)
        self.cross = [block.cross_attention.keys_values(memory) for block in model.decoder]
        self.own: list[tuple[Tensor, Tensor]] = []

    def __call__(
        self, level: int, parents: Int[Tensor, "B W"], codes: Int[Tensor, "B W M"]
    ) -> Float[Tensor, "B W M N"]:
        model = self.model
        rows, beams = parents.shape
        x = (
            model.start.expand(rows, beams, -1) if level == 0 else model.embedding.one_level(level - 1, codes)
        )  # (B, W, E)
        steps = torch.arange(level + 1, device=x.device)
        bias = model.decoder_bias(steps[-1:], steps) + mask_bias(steps <= level)  # (1, H, 1, l + 1)
        kept = []
        for number, block in enumerate(model.decoder):
            own = block.norm_self(x).flatten(0, 1)[:, None]  # (B W, 1, E)
            keys, values = block.self_attention.keys_values(own)  # (B W, H, 1, C)
            if level > 0:
                old_keys, old_values = (self._follow(past, parents) for past in self.own[number])
                keys, values = torch.cat((old_keys, keys), 2), torch.cat((old_values, values), 2)
            kept.append((keys, values))
            x = x + block.self_attention(own, (keys, values), bias).view_as(x)
            x = x + block.cross_attention(block.norm_cross(x), self.cross[number], self.cross_bias)
            x = block.feed(x)
        self.own = kept
        logits = model.code_logits(model.norm_decoder(x).flatten(0, 1)[:, None], level)  # (B W, 1, M, N)
        return torch.log_softmax(logits.view(rows, beams, *logits.shape[2:]), dim=-1)

    @staticmethod
    def _follow(past: Float[Tensor, "BV H l C"], parents: Int[Tensor, "B W"]) -> Float[Tensor, "BW H l C"]:
        """Reorder a cache of B x V beams so that beam w continues its parent."""
        rows = parents.shape[0]
        shift = torch.arange(rows, device=parents.device)[:, None] * (past.shape[0] // rows)
        return past[(parents + shift).flatten()]


@torch.no_grad()
def generate(model: Recommender, trie: DeviceTrie, history: Int[Tensor, "B T"], beam: int) -> Beams:
    """The best `beam` IDs for each history. The model must be in evaluation mode."""
    return beam_search(CachedScores(model, history), trie, len(history), beam, model.priors(trie.log_popularity))
