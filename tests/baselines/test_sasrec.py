"""SASRec against the loops of its encoder."""

import numpy as np
import pytest
import torch
from held_out import held_out_dataset
from reference_models import sequence_encoder

from bbqrec.baselines.sasrec import SASRec, SASRecConfig
from bbqrec.data import Batch


def model(**changes) -> SASRec:
    torch.manual_seed(2)
    made = SASRec(SASRecConfig(d_model=6, layers=3, heads=2, max_history=5, **changes), held_out_dataset())
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return made.double().eval()


def reference_scores(made: SASRec, history: list[int]) -> np.ndarray:
    w = {name: value.detach().numpy() for name, value in made.state_dict().items()}
    ids = w["input.ids.weight"]
    renamed = {name.replace("encoder.", "sequence_encoder.", 1): value for name, value in w.items()}
    h = sequence_encoder(renamed, ids[history], 3, 2)
    return np.array([sum(h[-1] * item) for item in ids])


def test_scores_equal_the_loops():
    made = model()
    for history in ([3], [5, 1, 9, 2], [4, 4, 11, 0, 7]):
        found = made.scores(torch.tensor([history]))[0].detach().numpy()
        np.testing.assert_allclose(found, reference_scores(made, history), atol=1e-10)


def test_loss_is_the_mean_over_the_counted_targets():
    made = model()
    batch = Batch(
        history=torch.tensor([[3, 5, 1], [8, 2, -1]]),
        target=torch.tensor([[5, 1, 7], [2, 0, 0]]),
        visible=torch.tensor([[1, 0, 3], [1, 0, 0]]),
    )
    expected = []
    for history, target in (([3], 5), ([3, 5, 1], 7), ([8], 2)):
        row = reference_scores(made, history)
        expected.append(np.log(np.exp(row).sum()) - row[target])
    loss, targets = made.loss(batch)
    assert targets == 3 and loss.item() == pytest.approx(np.mean(expected), abs=1e-10)


def test_the_losses_differ():
    batch = Batch(
        history=torch.tensor([[3, 5, 1]]), target=torch.tensor([[5, 1, 7]]), visible=torch.tensor([[1, 2, 3]])
    )
    assert model().loss(batch)[0].item() != pytest.approx(model(loss="bce").loss(batch)[0].item(), abs=1e-3)


def test_heads_must_divide_the_width():
    with pytest.raises(ValueError, match="heads=3 must divide d_model=8"):
        SASRecConfig(d_model=8, heads=3)
