"""Every objective, in the paper's order. Pure functions: weights are arguments, `reduction` is "mean" or "sum".

`mean` averages over items (or predictions) and over the width of a vector, so that each term keeps its scale whatever
the sizes; `sum` is the paper's literal form, which sums over the width and averages over items.
"""

from typing import NamedTuple

import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor


def _reduce(squares: Float[Tensor, "*rows D"], reduction: str) -> Float[Tensor, "*rows"]:
    return squares.mean(-1) if reduction == "mean" else squares.sum(-1)


def reconstruction(
    x: Float[Tensor, "R F"], x_hat: Float[Tensor, "R F"], present: Bool[Tensor, "R"], reduction: str = "mean"
) -> Float[Tensor, ""]:
    """Eq. 9, one summand of L_recon: |x - x_hat|^2 averaged over the items that have the modality (0 if none has)."""
    per_item = _reduce((x - x_hat).square(), reduction)
    return (per_item * present).sum() / present.sum().clamp(min=1)


def residual_quantization(
    residuals: Float[Tensor, "R L M D"], codewords: Float[Tensor, "R L M D"], alpha: float, reduction: str = "mean"
) -> Float[Tensor, ""]:
    """Eq. 9, sum over m of L_RQ^m: sum_l |sg[z^l] - c^l|^2 + alpha |z^l - sg[c^l]|^2, averaged over items."""
    codebook = _reduce((residuals.detach() - codewords).square(), reduction)
    commitment = _reduce((residuals - codewords.detach()).square(), reduction)
    return (codebook + alpha * commitment).sum(dim=(1, 2)).mean()


def sequence_to_item(
    h: Float[Tensor, "P W"], v: Float[Tensor, "C W"], target: Int[Tensor, "P"], tau: float
) -> Float[Tensor, ""]:
    """Eq. 12, L_Rec: softmax cross-entropy of cos(h_t, v_i) / tau, averaged over predictions.

    The C candidates are the distinct items of the batch, so an item equal to the target is never its own negative;
    `target` indexes them.
    """
    logits = F.normalize(h, dim=-1) @ F.normalize(v, dim=-1).T / tau
    return F.cross_entropy(logits, target)


class QuantizerLosses(NamedTuple):
    """The terms of Eq. 13, unweighted but for alpha inside L_RQ."""

    recon: Float[Tensor, ""]
    rq: Float[Tensor, ""]
    rec: Float[Tensor, ""]
    mim: Float[Tensor, ""]


def total(terms: QuantizerLosses, beta: float, gamma: float) -> Float[Tensor, ""]:
    """Eq. 13: L_RQ-VAE + beta L_Rec + gamma L_MIM."""
    return terms.recon + terms.rq + beta * terms.rec + gamma * terms.mim


def next_codes(
    logits: Float[Tensor, "P L M N"], codes: Int[Tensor, "P L M"], label_smoothing: float = 0.0
) -> Float[Tensor, ""]:
    """Eq. 1 for composite positions: cross-entropy averaged over predictions, levels and components."""
    return F.cross_entropy(logits.flatten(0, 2), codes.flatten(), label_smoothing=label_smoothing)
