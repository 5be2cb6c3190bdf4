"""What both loops share: random numbers by epoch, the learning rate, finite losses, averages."""

import math

import pytest
import torch

from bbqrec.training import Averages, epoch_generator, learning_rate, require_finite


def test_every_epoch_of_every_seed_draws_its_own_numbers_again():
    def draws(seed: int, epoch: int) -> tuple[float, ...]:
        generator = epoch_generator(seed, epoch)
        return torch.rand(1).item(), torch.rand(1, generator=generator).item(), torch.rand(1).item()

    found = {(seed, epoch): draws(seed, epoch) for seed in range(4) for epoch in range(5)}
    assert len(set(found.values())) == 20
    assert all(draws(*name) == value for name, value in found.items())


@pytest.mark.parametrize("decay", ["cosine", "constant"])
def test_learning_rate_warms_up_and_decays(decay):
    rates = [learning_rate(0.4, step, 10, 110, decay) for step in range(110)]
    assert rates[:10] == pytest.approx([0.04 * (step + 1) for step in range(10)])
    if decay == "constant":
        assert rates[10:] == [0.4] * 100
    else:
        expected = [0.2 * (1 + math.cos(math.pi * step / 100)) for step in range(100)]
        assert rates[10:] == pytest.approx(expected)
        assert learning_rate(0.4, 110, 10, 110, decay) == pytest.approx(0.0)
        assert learning_rate(0.4, 500, 10, 110, decay) == pytest.approx(0.0)
    assert learning_rate(0.4, 0, 0, 1, decay) == 0.4


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_no_number_names_itself(value):
    require_finite({"rq": torch.tensor(3.0)}, 2, 5)
    with pytest.raises(FloatingPointError, match=r"mim is .* at epoch 2, step 5"):
        require_finite({"rq": torch.tensor(3.0), "mim": torch.tensor(value)}, 2, 5)


def test_averages_weigh_the_batches():
    averages = Averages()
    averages.add({"loss": torch.tensor(2.0)}, 3.0)
    averages.add({"loss": torch.tensor(6.0)}, 1.0)
    assert averages.means() == {"loss": pytest.approx(3.0)}


def test_averages_of_a_term_that_some_batches_lack():
    """A batch without any image has no image likelihood: the mean is over those that have one."""
    averages = Averages()
    averages.add({"loss": torch.tensor(2.0), "image": torch.tensor(5.0)}, 3.0)
    averages.add({"loss": torch.tensor(6.0)}, 1.0)
    assert averages.means() == {"loss": pytest.approx(3.0), "image": pytest.approx(5.0)}
