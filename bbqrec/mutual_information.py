"""CLUB, the upper bound of mutual information of Eq. 3 (Cheng et al., ICML 2020), in closed form."""

import torch
from jaxtyping import Float
from torch import Tensor, nn


class VariationalNet(nn.Module):
    """q_theta(z_specific | z): a diagonal Gaussian whose mean and log-variance are read off z.

    The log-variance is bounded by tanh, so that the likelihood cannot explode; `saturation` shows how often it is
    at the bound.
    """

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.mean = nn.Sequential(nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, width))
        self.log_variance = nn.Sequential(nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, width), nn.Tanh())

    def forward(self, z: Float[Tensor, "R D"]) -> tuple[Float[Tensor, "R D"], Float[Tensor, "R D"]]:
        return self.mean(z), self.log_variance(z)


def log_likelihood(
    mean: Float[Tensor, "R D"], log_variance: Float[Tensor, "R D"], z_specific: Float[Tensor, "R D"]
) -> Float[Tensor, ""]:
    """Mean over items and width of log q(z_specific_i | z_i), without the constant -log(2 pi) / 2.

    q_theta is fitted by maximising this on detached inputs.
    """
    return -0.5 * ((z_specific - mean).square() * torch.exp(-log_variance) + log_variance).mean()


def club(
    mean: Float[Tensor, "R D"],
    log_variance: Float[Tensor, "R D"],
    z_specific: Float[Tensor, "R D"],
    reduction: str = "mean",
) -> Float[Tensor, ""]:
    """Eq. 3 for one modality: mean_i [log q(zs_i | z_i) - mean_j log q(zs_j | z_i)].

    The inner mean over j needs only the batch's first two moments: mean_j (zs_j - mu)^2 = var(zs) + (mean(zs) - mu)^2,
    so the cost is linear in the batch. `reduction` "mean" divides the sum over the width by the width.
    """
    moment = z_specific.mean(0)
    spread = (z_specific - moment).square().mean(0)
    positive = (z_specific - mean).square()
    negative = spread + (moment - mean).square()
    bound = 0.5 * (negative - positive) * torch.exp(-log_variance)
    return (bound.mean(-1) if reduction == "mean" else bound.sum(-1)).mean()


def saturation(log_variance: Float[Tensor, "R D"]) -> Float[Tensor, ""]:
    """Share of log-variances within 1 % of the tanh bound; near 1 the Gaussian no longer fits the data."""
    return (log_variance.abs() > 0.99).float().mean()
