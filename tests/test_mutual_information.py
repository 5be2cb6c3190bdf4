"""CLUB in closed form against all N_B^2 pairs of Eq. 3."""

import numpy as np
import pytest
import reference as ref
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bbqrec.mutual_information import VariationalNet, club, log_likelihood, saturation


def gaussians(rows: int, width: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = np.random.default_rng([seed, rows, width])
    mean, log_variance = generator.normal(1, 2, (rows, width)), np.tanh(generator.normal(size=(rows, width)))
    return tuple(map(torch.from_numpy, (mean, log_variance, generator.normal(-1, 3, (rows, width)))))


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 7), st.integers(1, 5), st.integers(0, 9))
def test_club_equals_all_pairs(rows, width, seed):
    parts = gaussians(rows, width, seed)
    for reduction in ("mean", "sum"):
        expected = ref.club(*(p.numpy() for p in parts), per_width=reduction == "mean")
        assert club(*parts, reduction).item() == pytest.approx(expected, rel=1e-9, abs=1e-9)


def test_club_gradients_equal_those_of_all_pairs():
    mean, log_variance, specific = (p.requires_grad_() for p in gaussians(6, 3))
    club(mean, log_variance, specific, "sum").backward()
    for number, part in enumerate((mean, log_variance, specific)):
        for i, d in ((0, 0), (4, 2), (5, 1)):
            sides = []
            for step in (1e-5, -1e-5):
                moved = [p.detach().numpy().copy() for p in (mean, log_variance, specific)]
                moved[number][i, d] += step
                sides.append(ref.club(*moved, per_width=False))
            assert part.grad[i, d].item() == pytest.approx((sides[0] - sides[1]) / 2e-5, rel=1e-5, abs=1e-7)


def test_log_likelihood_is_the_gaussian_density_without_its_constant():
    parts = gaussians(5, 4)
    expected = ref.log_likelihood(*(p.numpy() for p in parts)) + 0.5 * np.log(2 * np.pi)
    assert log_likelihood(*parts).item() == pytest.approx(expected, rel=1e-12)


def test_a_fitted_net_tells_dependent_from_independent():
    """The bound is near the true mutual information where q_theta can express the truth, and near zero without any."""
    generator = torch.Generator().manual_seed(3)
    z, noise = torch.randn(2000, 2, generator=generator), torch.randn(2000, 2, generator=generator)
    bounds = {}
    for name, specific in {"dependent": 0.8 * z + 0.6 * noise, "independent": noise}.items():
        torch.manual_seed(1)
        net = VariationalNet(2, 16)
        optimizer = torch.optim.Adam(net.parameters(), lr=0.02)
        for _ in range(200):
            optimizer.zero_grad()
            (-log_likelihood(*net(z), specific)).backward()
            optimizer.step()
        bounds[name] = club(*net(z), specific, "mean").item()
    assert abs(bounds["independent"]) < 0.05
    # Of jointly Gaussian numbers with correlation .8: I = .51 nats, and CLUB's exact value is .64 / .36 = 1.78.
    assert bounds["dependent"] == pytest.approx(0.64 / 0.36, rel=0.15)


def test_saturation_is_the_share_at_the_bound():
    assert saturation(torch.tensor([[0.0, 0.995], [-0.999, 0.5], [0.98, -0.2]])).item() == pytest.approx(2 / 6)
