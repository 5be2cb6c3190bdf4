"""Raw features of text and images as models read them: standardised, with a learned vector where there are none."""

from collections.abc import Mapping

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from bbqrec.schema import Features


def standardise(features: Features) -> Float[Tensor, "I F"]:
    """Zero mean and unit variance per column over the items that have the modality; zero rows elsewhere."""
    have = features.values[features.present]
    mean = have.mean(0, dtype=np.float64) if len(have) else 0.0
    deviation = have.std(0, dtype=np.float64) if len(have) else 1.0
    scaled = (features.values - mean) / np.where(deviation > 1e-8, deviation, 1.0)
    return torch.from_numpy((scaled * features.present[:, None]).astype(np.float32))


class ProjectedFeatures(nn.Module):
    """One modality behind a linear map; items without it get one learned vector (the rule of stage 1)."""

    features: Tensor
    present: Tensor

    def __init__(self, features: Features, width: int) -> None:
        super().__init__()
        self.register_buffer("features", standardise(features))
        self.register_buffer("present", torch.from_numpy(features.present.copy()))
        self.project = nn.Linear(features.values.shape[1], width)
        self.missing = nn.Parameter(torch.randn(width) * 0.02)

    def forward(self, items: Int[Tensor, "*rows"]) -> Float[Tensor, "*rows D"]:
        return torch.where(self.present[items][..., None], self.project(self.features[items]), self.missing)


def projected(features: Mapping[str, Features], names: tuple[str, ...], width: int) -> nn.ModuleDict:
    """The projections of the named modalities that the data set has for any item."""
    return nn.ModuleDict({name: ProjectedFeatures(features[name], width) for name in names})
