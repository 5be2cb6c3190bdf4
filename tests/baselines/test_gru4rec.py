"""GRU4Rec against the loops of its recurrence."""

import math

import numpy as np
import pytest
import torch
from held_out import held_out_dataset

from bbqrec.baselines.gru4rec import GRU4Rec, GRU4RecConfig
from bbqrec.data import Batch

LAYERS, HIDDEN = 2, 4


def model(**changes) -> GRU4Rec:
    torch.manual_seed(2)
    config = GRU4RecConfig(d_model=6, hidden=HIDDEN, layers=LAYERS, max_history=5, **changes)
    made = GRU4Rec(config, held_out_dataset())
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return made.double().eval()


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def recurrence(w, layer: int, rows) -> list:
    """Cho et al., 2014, unit by unit, with the reset gate behind the recurrent product."""
    of_x, of_h = (w[f"gru.{name}_l{layer}"] for name in ("weight_ih", "weight_hh"))
    x_bias, h_bias = (w[f"gru.{name}_l{layer}"] for name in ("bias_ih", "bias_hh"))
    h, states = [0.0] * HIDDEN, []
    for x in rows:
        by_x = [sum(a * b for a, b in zip(row, x, strict=True)) + c for row, c in zip(of_x, x_bias, strict=True)]
        by_h = [sum(a * b for a, b in zip(row, h, strict=True)) + c for row, c in zip(of_h, h_bias, strict=True)]
        after = []
        for n in range(HIDDEN):
            reset = sigmoid(by_x[n] + by_h[n])
            update = sigmoid(by_x[HIDDEN + n] + by_h[HIDDEN + n])
            new = math.tanh(by_x[2 * HIDDEN + n] + reset * by_h[2 * HIDDEN + n])
            after.append((1 - update) * new + update * h[n])
        h = after
        states.append(h)
    return states


def reference_scores(made: GRU4Rec, history: list[int]) -> np.ndarray:
    w = {name: value.detach().numpy() for name, value in made.state_dict().items()}
    ids = w["input.ids.weight"]
    rows = [ids[item] for item in history]
    for layer in range(LAYERS):
        rows = recurrence(w, layer, rows)
    mapped = w["out.weight"] @ np.array(rows[-1]) + w["out.bias"]
    return np.array([sum(mapped * item) for item in ids])


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
    assert model().loss(batch)[0].item() != pytest.approx(model(loss="top1").loss(batch)[0].item(), abs=1e-3)


def test_features_enter_at_the_input():
    made, plain = model(features=("text",)), model()
    assert made.gru.input_size == plain.gru.input_size == 6
    with torch.no_grad():
        before = made.scores(torch.tensor([[3, 5]]))
        made.input.features["text"].features[5] += 1
        assert made.input.features["text"].present[5]
        assert (made.scores(torch.tensor([[3, 5]])) - before).abs().max() > 1e-6


def test_hidden_units_there_must_be():
    with pytest.raises(ValueError, match="hidden=0 must be at least 1"):
        GRU4RecConfig(hidden=0)
