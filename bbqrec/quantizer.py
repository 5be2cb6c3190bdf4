"""Stage 1 (Sec. 4.1): text, image and ID of an item -> behaviour-aligned latents -> codes of one shared codebook."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from bbqrec.codebook import Quantized, ResidualCodebook, straight_through
from bbqrec.config import QuantizerConfig
from bbqrec.item_features import standardise
from bbqrec.losses import QuantizerLosses, reconstruction, residual_quantization, sequence_to_item
from bbqrec.mutual_information import VariationalNet, club
from bbqrec.schema import PAD, Codes, Features
from bbqrec.sequence_encoder import SequenceEncoder


def mlp(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, outputs))


class LatentEncoder(nn.Module):
    """An encoder of Eq. 2 whose outputs have zero mean and unit variance per dimension over the items of the batch.

    Without it L_MIM and L_RQ have a cheap optimum: latents that are the same for every item. In evaluation the running
    moments of training take the batch's place.
    """

    def __init__(self, raw: int, config: QuantizerConfig) -> None:
        super().__init__()
        self.map = mlp(raw, config.hidden, config.width)
        self.norm = nn.BatchNorm1d(config.width, affine=False)

    def forward(self, x: Float[Tensor, "R F"]) -> Float[Tensor, "R D"]:
        z, norm = self.map(x), self.norm
        if self.training and len(z) < 2:  # one item has no variance
            return F.batch_norm(z, norm.running_mean, norm.running_var, eps=norm.eps)
        return norm(z)


class Modality(nn.Module):
    """Encoders and decoder of one modality (Eq. 2, 8), over its standardised features.

    Items without the modality get one learned vector in place of z, quantized like any other.
    """

    features: Tensor
    present: Tensor

    def __init__(self, features: Features, config: QuantizerConfig) -> None:
        super().__init__()
        self.register_buffer("features", standardise(features))
        self.register_buffer("present", torch.from_numpy(features.present.copy()))
        raw, width = features.values.shape[1], config.width
        self.behaviour = LatentEncoder(raw, config)
        self.specific = LatentEncoder(raw, config) if config.disentangle else None
        self.decoder = mlp(2 * width if config.disentangle else width, config.hidden, raw)
        self.missing = nn.Parameter(torch.randn(width) * config.id_std)

    def encode(self, items: Int[Tensor, "R"]) -> Float[Tensor, "R D"]:
        """z of Eq. 2, or the missing vector."""
        return self._of_present(self.behaviour, items, self.missing)

    def encode_specific(self, items: Int[Tensor, "R"]) -> Float[Tensor, "R D"] | None:
        """z-bar of Eq. 2, zero for items without the modality; None without specific encoders (w/o MIM)."""
        return None if self.specific is None else self._of_present(self.specific, items, torch.zeros_like(self.missing))

    def _of_present(
        self, encoder: LatentEncoder, items: Int[Tensor, "R"], otherwise: Float[Tensor, "D"]
    ) -> Float[Tensor, "R D"]:
        have = self.present[items]
        z = otherwise.expand(len(items), -1)
        return z.masked_scatter(have[:, None], encoder(self.features[items[have]]))

    def decode(self, q: Float[Tensor, "R D"], z_specific: Float[Tensor, "R D"] | None) -> Float[Tensor, "R F"]:
        """Eq. 8: the decoder reads the quantized and, if there is one, the specific representation."""
        return self.decoder(q if z_specific is None else torch.cat((q, z_specific), dim=-1))


@dataclass(frozen=True, kw_only=True)
class QuantizerOutput:
    """What one batch leaves: the terms of Eq. 13, the codes if there are any yet, and what q_theta is fitted on."""

    losses: QuantizerLosses
    quantized: Quantized | None
    z: Float[Tensor, "R M D"]
    z_specific: Mapping[str, Float[Tensor, "R D"]]
    present: Mapping[str, Bool[Tensor, "R"]]


class Quantizer(nn.Module):
    """The whole model of Sec. 4.1. `variational` (q_theta of Eq. 3) belongs to an optimiser of its own."""

    def __init__(self, config: QuantizerConfig, num_items: int, features: Mapping[str, Features]) -> None:
        super().__init__()
        self.config = config
        self.id_embedding = nn.Embedding(num_items, config.width) if "id" in config.components else None
        if self.id_embedding is not None:
            nn.init.normal_(self.id_embedding.weight, std=config.id_std)
        self.modalities = nn.ModuleDict({m: Modality(features[m], config) for m in config.modalities})
        self.codebook = ResidualCodebook(
            config.levels, config.codes, config.width, len(config.components), config.shared
        )
        self.sequence_encoder = (
            SequenceEncoder(
                config.vector_width, config.sequence_layers, config.sequence_heads, config.max_history, config.dropout
            )
            if config.contrastive
            else None
        )
        disentangled = config.modalities if config.disentangle else ()
        self.variational = nn.ModuleDict({m: VariationalNet(config.width, config.club_hidden) for m in disentangled})

    def encode(self, items: Int[Tensor, "R"]) -> Float[Tensor, "R M D"]:
        """Z_i of Eq. 4, before quantization; every latent is normalised over its width, learned IDs included.

        The paper is silent on scales: at one scale no component dominates the shared codebook.
        """
        parts = [
            self.id_embedding(items)
            if c == "id" and self.id_embedding is not None
            else self.modalities[c].encode(items)
            for c in self.config.components
        ]
        return normalised(torch.stack(parts, dim=1))

    def forward(
        self, windows: Int[Tensor, "B T1"], counted: Bool[Tensor, "B T"], quantize: bool = True
    ) -> QuantizerOutput:
        """A batch of training windows; `counted` marks the positions whose next item is predicted.

        Without `quantize` the latents stand in for q, and L_RQ is 0.
        """
        items, place = torch.unique(windows, return_inverse=True)  # distinct items of the batch: N_B of Eq. 3
        if items[0] == PAD:
            items, place = items[1:], place - 1  # place is -1 where the window is padded
        z = self.encode(items)  # (R, M, D)
        quantized = self.codebook(z) if quantize else None
        q = z if quantized is None else straight_through(z, quantized.q)  # (R, M, D)
        encoded = {m: part.encode_specific(items) for m, part in self.modalities.items()}
        specific = {m: z_specific for m, z_specific in encoded.items() if z_specific is not None}
        present = {m: part.present[items] for m, part in self.modalities.items()}
        losses = QuantizerLosses(
            recon=self.reconstruct(items, q, specific),
            rq=z.new_zeros(())
            if quantized is None
            else residual_quantization(
                quantized.residuals, quantized.codewords, self.config.alpha, self.config.reduction
            ),
            rec=self.predict(q.flatten(1), place, counted),
            mim=self.mutual_information(z, specific, present),
        )
        return QuantizerOutput(losses=losses, quantized=quantized, z=z, z_specific=specific, present=present)

    def reconstruct(
        self, items: Int[Tensor, "R"], q: Float[Tensor, "R M D"], specific: Mapping[str, Float[Tensor, "R D"]]
    ) -> Float[Tensor, ""]:
        """L_recon of Eq. 9 over the modalities."""
        total = q.new_zeros(())
        for name, part in self.modalities.items():
            x_hat = part.decode(q[:, self.config.components.index(name)], specific.get(name))
            total = total + reconstruction(part.features[items], x_hat, part.present[items], self.config.reduction)
        return total

    def predict(
        self, v: Float[Tensor, "R W"], place: Int[Tensor, "B T1"], counted: Bool[Tensor, "B T"]
    ) -> Float[Tensor, ""]:
        """L_Rec of Eq. 10-12: the next item at every counted position, against the distinct items of the batch."""
        if self.sequence_encoder is None or not bool(counted.any()):
            return v.new_zeros(())
        before = place[:, :-1]
        # embedding, not indexing: the gradient of an indexed tensor depends on the order that threads finish in.
        history = F.embedding(before.clamp(min=0), v) * (before[..., None] >= 0)  # (B, T, W)
        h = self.sequence_encoder(history)
        return sequence_to_item(h[counted], v, place[:, 1:][counted], self.config.tau)

    def mutual_information(
        self,
        z: Float[Tensor, "R M D"],
        specific: Mapping[str, Float[Tensor, "R D"]],
        present: Mapping[str, Bool[Tensor, "R"]],
    ) -> Float[Tensor, ""]:
        """L_MIM of Eq. 3 over the items that have the modality."""
        total = z.new_zeros(())
        for name, z_specific in specific.items():
            have = present[name]
            if bool(have.any()):
                mean, log_variance = self.variational[name](z[have, self.config.components.index(name)])
                total = total + club(mean, log_variance, z_specific[have], self.config.reduction)
        return total

    @torch.no_grad()
    def catalogue(
        self, num_items: int, take: Callable[[Quantized], tuple[Tensor, ...]], chunk: int = 8192
    ) -> list[np.ndarray]:
        """What `take` takes of the whole catalogue quantized in evaluation mode, a chunk of items at a time."""
        was_training = self.training
        self.eval()
        device = self.codebook.codebooks.device
        parts = []
        for start in range(0, num_items, chunk):
            items = torch.arange(start, min(start + chunk, num_items), device=device)
            parts.append([part.cpu().numpy() for part in take(self.codebook(self.encode(items)))])
        self.train(was_training)
        return [np.concatenate(part) for part in zip(*parts, strict=True)]

    def codes(self, num_items: int, chunk: int = 8192) -> Codes:
        """Codes and v (Eq. 10) of the whole catalogue."""
        codes, vectors = self.catalogue(num_items, lambda found: (found.codes, found.q.flatten(1)), chunk)
        return Codes(
            components=self.config.components,
            codes=codes,
            vectors=vectors,
            codebooks=self.codebook.per_component().cpu().numpy(),
        )


def normalised(z: Float[Tensor, "*rows D"]) -> Float[Tensor, "*rows D"]:
    return F.layer_norm(z, z.shape[-1:])
