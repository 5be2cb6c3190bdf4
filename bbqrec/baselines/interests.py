"""The interests of MISSRec: clusters of item features, the distinct ones of a history, and what keeps them apart."""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from bbqrec.codebook import kmeans, nearest_centre
from bbqrec.schema import PAD


@torch.no_grad()
def discover_interests(
    vectors: Float[Tensor, "I M E"],
    present: Bool[Tensor, "I M"],
    ratio: float,
    iterations: int,
    generator: torch.Generator,
) -> Int[Tensor, "I M"]:
    """The interest of every vector: its cluster among the vectors of all modalities together.

    The vectors that a modality lacks are one more interest per modality, numbered behind the others.
    """
    points = vectors[present]
    count = math.ceil(ratio * len(points))
    absent = count + torch.arange(present.shape[1], device=present.device)
    interests = absent.expand(present.shape).clone()
    interests[present] = nearest_centre(points, kmeans(points, count, iterations, generator))
    return interests


def distinct(numbers: Int[Tensor, "B J"]) -> Int[Tensor, "B K"]:
    """Each row's numbers once, in falling order, `PAD` on the right."""
    ordered = numbers.sort(dim=1).values
    again = F.pad(ordered[:, 1:] == ordered[:, :-1], (1, 0))
    once = ordered.masked_fill(again, PAD).sort(dim=1, descending=True).values
    return once[:, : int((once != PAD).sum(1).max())]


class Interests(NamedTuple):
    """The encoded interests of every history, and which of them are no padding."""

    states: Float[Tensor, "B K E"]
    real: Bool[Tensor, "B K"]


def interest_regularisation(interests: Interests) -> Float[Tensor, ""]:
    """Mean over users of |mean interest|^2 / E: the mean product of a user's interests, lower as they turn apart."""
    states, real = interests
    mean = (states * real[..., None]).sum(1) / real.sum(1, keepdim=True)  # (B, E)
    return mean.square().mean()
