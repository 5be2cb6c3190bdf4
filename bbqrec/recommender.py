"""Stage 2 (Sec. 4.2): a T5-like encoder-decoder over semantic IDs that generates the next item's ID."""

import functools
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from bbqrec.attention import Attention, Mix, RelativeBias, SimilarityTable, mask_bias, similarity_buckets
from bbqrec.config import RecommenderConfig
from bbqrec.data import Batch
from bbqrec.losses import next_codes
from bbqrec.schema import PAD


class CodeEmbedding(nn.Module):
    """Embedding of a position: one table per level and component, concatenated and mapped to d_model (or summed)."""

    def __init__(self, levels: int, components: int, codes: int, d_model: int, fusion: str, std: float = 0.05) -> None:
        super().__init__()
        self.codes = codes
        self.tables = nn.Parameter(torch.randn(levels, components, codes, d_model) * std)
        self.fuse = nn.Linear(components * d_model, d_model, bias=False) if fusion == "concat" else None

    def fused(self) -> Float[Tensor, "L M N E"]:
        """The tables behind the linear map: mapping each row once equals mapping every token's concatenation.

        In full precision: what they hold runs through every residual connection.
        """
        if self.fuse is None:
            return self.tables
        parts = self.fuse.weight.unflatten(1, (self.tables.shape[1], -1))  # (E, M, E)
        with torch.autocast(parts.device.type, enabled=False):
            return torch.einsum("lmne,fme->lmnf", self.tables, parts)

    def forward(self, codes: Int[Tensor, "*rows L M"]) -> Float[Tensor, "*rows L E"]:
        """The first L levels of IDs."""
        levels, components = codes.shape[-2:]
        table = torch.arange(levels * components, device=codes.device).view(levels, components)
        return F.embedding(codes + table * self.codes, self.fused()[:levels].flatten(0, 2)).sum(-2)

    def one_level(self, level: int, codes: Int[Tensor, "*rows M"]) -> Float[Tensor, "*rows E"]:
        """The embedding of one position alone."""
        table = torch.arange(codes.shape[-1], device=codes.device) * self.codes
        return F.embedding(codes + table, self.fused()[level].flatten(0, 1)).sum(-2)

    @torch.no_grad()
    def inherit(self, codebooks: Float[Tensor, "L M N D"], generator: torch.Generator) -> None:
        """Variant E: start from the codebook vectors, through one random projection if the widths differ."""
        width, d_model = codebooks.shape[-1], self.tables.shape[-1]
        if width != d_model:
            codebooks = codebooks @ (torch.randn(width, d_model, generator=generator) / width**0.5)
        # An appended disambiguation level has no codebook and keeps its random start.
        self.tables[: codebooks.shape[0], :, : codebooks.shape[2]] = codebooks.to(self.tables)


class Block(nn.Module):
    """Pre-norm self-attention, then cross-attention in the decoder, then the feed-forward block."""

    def __init__(self, config: RecommenderConfig, decoder: bool, similarity: bool) -> None:
        super().__init__()

        def attention() -> Attention:
            return Attention(config.d_model, config.heads, config.head_width, config.attention_scale)

        self.norm_self, self.self_attention = nn.RMSNorm(config.d_model, eps=1e-6), attention()
        self.similarity = (
            SimilarityTable(config.buckets, config.heads, config.head_width, config.similarity_init)
            if similarity
            else None
        )
        self.norm_cross = nn.RMSNorm(config.d_model, eps=1e-6) if decoder else None
        self.cross_attention = attention() if decoder else None
        self.norm_feed = nn.RMSNorm(config.d_model, eps=1e-6)
        self.wi = nn.Linear(config.d_model, config.d_ff, bias=False)
        self.wo = nn.Linear(config.d_ff, config.d_model, bias=False)
        nn.init.normal_(self.wi.weight, std=config.d_model**-0.5)
        nn.init.normal_(self.wo.weight, std=config.d_ff**-0.5)
        if self.cross_attention is not None and config.decoder_start != "learned":  # the identity at first
            for output in (self.self_attention.o, self.cross_attention.o, self.wo):
                nn.init.zeros_(output.weight)
        self.dropout = nn.Dropout(config.dropout)

    def feed(self, x: Float[Tensor, "*rows E"]) -> Float[Tensor, "*rows E"]:
        return x + self.dropout(self.wo(F.relu(self.wi(self.norm_feed(x)), inplace=True)))

    def encode(
        self,
        x: Float[Tensor, "B K E"],
        bias: Float[Tensor, "B H K K"],
        buckets: Int[Tensor, "B T T"] | None,
        causal: bool,
    ) -> Float[Tensor, "B K E"]:
        normed = self.norm_self(x)
        mix: Mix = torch.matmul
        if self.similarity is not None:
            mix = functools.partial(self.similarity, buckets=buckets, causal=causal)
        mixed = self.self_attention(normed, self.self_attention.keys_values(normed), bias, mix)
        return self.feed(x + self.dropout(mixed))


class Recommender(nn.Module):
    """Encoder-decoder over an item's positions; `codes` (I, L, M) is the catalogue, `vectors` (I, W) its v (Eq. 10).

    `item_codes` and `item_vectors` have one more row, which stands for padding.
    """

    item_codes: Tensor
    item_vectors: Tensor

    def __init__(
        self,
        config: RecommenderConfig,
        codes: Int[Tensor, "I L M"],
        vectors: Float[Tensor, "I W"],
        num_codes: int,
    ) -> None:
        super().__init__()
        self.config = config
        _, self.levels, self.components = codes.shape
        self.register_buffer("item_codes", F.pad(codes.long(), (0, 0, 0, 0, 0, 1)))
        self.register_buffer("item_vectors", F.pad(vectors, (0, 0, 0, 1)) if config.similarity else vectors[:0])
        self.embedding = CodeEmbedding(
            self.levels, self.components, num_codes, config.d_model, config.fusion, config.embedding_std
        )
        self.start = nn.Parameter(torch.randn(config.d_model) * 0.05)
        relative = (config.relative_buckets, config.relative_max_distance)
        packed = config.history == "packed"
        self.encoder_bias = RelativeBias(config.heads, True, *relative, recency=packed / self.levels)
        self.decoder_bias = RelativeBias(config.heads, False, *relative)
        self.cross_relative = RelativeBias(config.heads, False, *relative, recency=1.0) if packed else None
        self.encoder = nn.ModuleList(Block(config, False, config.similarity) for _ in range(config.encoder_layers))
        self.decoder = nn.ModuleList(Block(config, True, False) for _ in range(config.decoder_layers))
        self.norm_encoder = nn.RMSNorm(config.d_model, eps=1e-6)
        self.norm_decoder = nn.RMSNorm(config.d_model, eps=1e-6)
        # Vectors that are sums of many codes start as wide as an item's vector elsewhere: popularity decides at first.
        spread = (
            config.d_model**-0.5 if config.node_vectors == "codes" else 0.02 / (self.levels * self.components) ** 0.5
        )
        self.heads = nn.Parameter(torch.randn(self.levels, config.d_model, self.components * num_codes) * spread)
        self.prior_weight = nn.Parameter(torch.ones(self.levels)) if config.objective == "children" else None
        self.dropout = nn.Dropout(config.dropout)

    def encode(self, history: Int[Tensor, "B T"]) -> Float[Tensor, "B TL E"]:
        """Encoder states of every position of every item of the history (padding on the right), before dropout."""
        real = history != PAD
        x = self.dropout(self.embedding(self.item_codes[history]).flatten(1, 2))  # (B, T L, E)
        buckets = None
        if self.config.similarity:
            buckets = similarity_buckets(self.item_vectors[history], real, self.config.buckets)  # (B, T, T)
        visible = real[:, None, :].expand(-1, history.shape[1], -1)
        causal = self.config.history == "packed"
        if causal:
            visible = visible.tril()  # item-causal: item i sees the items up to itself
        token_visible = visible.repeat_interleave(self.levels, 1).repeat_interleave(self.levels, 2)
        positions = torch.arange(x.shape[1], device=x.device)
        bias = self.encoder_bias(positions, positions) + mask_bias(token_visible)[:, None]  # (B, H, T L, T L)
        for block in self.encoder:
            x = block.encode(x, bias, buckets, causal)
        return self.norm_encoder(x)

    def first(self, memory: Float[Tensor, "B TL E"], visible: Int[Tensor, "B S"]) -> Float[Tensor, "B S E"]:
        """What the decoder reads first for targets that see the first `visible` items (`decoder_start`)."""
        start = self.start.expand(*visible.shape, -1)
        if self.config.decoder_start == "learned":
            return start
        items = memory.unflatten(1, (-1, self.levels)).mean(2)  # (B, T, E)
        last = (visible - 1).clamp(min=0)[..., None].expand_as(start)
        return start + items.gather(1, last)

    def after(self, first: Float[Tensor, "*#rows E"], before: Float[Tensor, "*rows E"]) -> Float[Tensor, "*rows E"]:
        """What the decoder reads at a later level: the embedding of the level before, with `every` beside `first`."""
        return before + first if self.config.decoder_start == "every" else before

    def cross_bias(self, visible: Int[Tensor, "B S"], items: int) -> Float[Tensor, "B #H S TL"]:
        """A target sees the positions of the first `visible` items; in packed form it knows how far back each is."""
        places = torch.arange(items, device=visible.device)
        bias = mask_bias(places < visible[:, :, None])[:, None]  # (B, 1, S, T)
        if self.cross_relative is not None:
            counts = torch.arange(items + 1, device=visible.device)
            by_count = self.cross_relative(counts, places + 1)[0].transpose(0, 1).flatten(1)  # (T + 1, H T)
            bias = bias + F.embedding(visible, by_count).unflatten(-1, (-1, items)).transpose(1, 2)  # (B, H, S, T)
        return bias.repeat_interleave(self.levels, 3)

    def forward(self, batch: Batch) -> Float[Tensor, "P L M N"]:
        """Logits of the codes of the counted targets, teacher-forced, in the order of `batch.visible > 0`."""
        return self.code_logits(self.states(batch))

    def states(self, batch: Batch) -> Float[Tensor, "P L E"]:
        """What the heads of each level read, for the counted targets."""
        memory = self.encode(batch.history)  # (B, T L, E)
        first = self.first(memory, batch.visible)[:, :, None]  # (B, S, 1, E)
        before = self.embedding(self.item_codes[batch.target])[:, :, :-1]  # (B, S, L - 1, E)
        memory = self.dropout(memory)
        if self.config.decoder_start == "learned":
            x = self.dropout(torch.cat((first, before), dim=2))  # (B, S, L, E)
        else:
            x = torch.cat((first, self.after(first, self.dropout(before))), dim=2)
        steps = torch.arange(self.levels, device=x.device)
        causal = self.decoder_bias(steps, steps) + mask_bias(steps[None, :] <= steps[:, None])
        cross = self.cross_bias(batch.visible, batch.history.shape[1]).repeat_interleave(self.levels, 2)
        for block in self.decoder:
            assert block.cross_attention is not None and block.norm_cross is not None
            own = block.norm_self(x).flatten(0, 1)  # (B S, L, E)
            x = x + block.dropout(block.self_attention(own, block.self_attention.keys_values(own), causal).view_as(x))
            query = block.norm_cross(x).flatten(1, 2)  # (B, S L, E)
            x = x + block.dropout(
                block.cross_attention(query, block.cross_attention.keys_values(memory), cross).view_as(x)
            )
            x = block.feed(x)
        return self.norm_decoder(x[batch.visible > 0])

    def code_logits(self, x: Float[Tensor, "P L E"], level: int = 0) -> Float[Tensor, "P L M N"]:
        """The parallel heads of the levels from `level` on."""
        heads = self.heads[level : level + x.shape[1]]
        logits = torch.bmm(x.transpose(0, 1), heads).transpose(0, 1)
        return logits.unflatten(-1, (self.components, -1))

    def priors(self, log_popularity: Sequence[Float[Tensor, "_"]]) -> list[Float[Tensor, "_"]] | None:
        """What popularity adds to the score of each node of a trie, per depth (objective `children`; else None)."""
        if self.prior_weight is None:
            return None
        return [w * below.to(w) for w, below in zip(self.prior_weight, log_popularity, strict=True)]

    def loss(self, batch: Batch, label_smoothing: float = 0.0) -> Float[Tensor, ""]:
        """Mean cross-entropy of the counted targets' codes (Eq. 1)."""
        counted = batch.target[batch.visible > 0]
        logits = self.code_logits(self.states(batch) / self.config.temperature)  # of fewer numbers than the logits
        return next_codes(logits, self.item_codes[counted], label_smoothing)
