"""What models over item IDs share, against loops."""

import math

import numpy as np
import pytest
import torch
from held_out import held_out_dataset

from bbqrec.baselines.next_item import ItemInput, counted, last_state, next_item_loss
from bbqrec.data import Batch
from bbqrec.schema import PAD

P, COUNT, E = 5, 7, 3
torch.manual_seed(4)
H, ITEMS = torch.randn(P, E, dtype=torch.float64), torch.randn(COUNT, E, dtype=torch.float64)
TARGET = torch.tensor([2, 0, 6, 2, 5])


def scores() -> np.ndarray:
    return np.array([[sum(a * b for a, b in zip(h, item, strict=True)) for item in ITEMS.tolist()] for h in H.tolist()])


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def test_full_cross_entropy_over_all_items():
    rows = scores()
    each = [math.log(sum(math.exp(s) for s in row)) - row[t] for row, t in zip(rows, TARGET, strict=True)]
    assert next_item_loss(H, ITEMS, TARGET, "full").item() == pytest.approx(sum(each) / P, abs=1e-12)


def test_top1_of_the_other_targets_of_the_batch():
    """Hidasi et al., Sec. 3.2.2; a row with the same target is no negative."""
    rows, targets = scores(), TARGET.tolist()
    each = []
    for row, target in zip(rows, targets, strict=True):
        others = [t for t in targets if t != target]
        each.append(sum(sigmoid(row[t] - row[target]) + sigmoid(row[t] ** 2) for t in others) / len(others))
    assert next_item_loss(H, ITEMS, TARGET, "top1").item() == pytest.approx(sum(each) / P, abs=1e-12)


def test_bce_against_one_other_item():
    """SASRec, Eq. 7: over many draws the mean over all negatives, and never the target."""
    rows = scores()
    positive = [-math.log(sigmoid(row[t])) for row, t in zip(rows, TARGET, strict=True)]
    negative = [
        np.mean([-math.log(1 - sigmoid(row[j])) for j in range(COUNT) if j != t])
        for row, t in zip(rows, TARGET, strict=True)
    ]
    draws = [next_item_loss(H, ITEMS, TARGET, "bce").item() for _ in range(4000)]
    spread = np.std(draws) / 4000**0.5
    assert np.mean(draws) == pytest.approx(np.mean(positive) + np.mean(negative), abs=4 * spread)


def test_an_unknown_loss_is_named():
    with pytest.raises(ValueError, match="loss=hinge"):
        next_item_loss(H, ITEMS, TARGET, "hinge")


def test_counted_targets_name_the_state_that_predicts_them():
    batch = Batch(
        history=torch.tensor([[4, 5, 6], [7, 8, PAD]]),
        target=torch.tensor([[5, 6, 9], [8, 0, 0]]),
        visible=torch.tensor([[1, 0, 3], [1, 0, 0]]),
    )
    row, place, target = counted(batch)
    assert list(zip(row.tolist(), place.tolist(), target.tolist(), strict=True)) == [(0, 0, 5), (0, 2, 9), (1, 0, 8)]


def test_last_state_stands_at_the_last_item():
    history = torch.tensor([[4, 5, 6], [7, PAD, PAD]])
    h = torch.arange(6.0).view(2, 3, 1)
    assert last_state(h, history).flatten().tolist() == [2.0, 3.0]


def test_input_with_features_is_a_map_of_the_concatenation():
    dataset = held_out_dataset()
    torch.manual_seed(0)
    made = ItemInput(dataset, ("text", "image"), E).double()
    history = torch.arange(dataset.num_items)[None]
    found = made(history)[0].detach().numpy()
    weights = {name: value.detach().numpy() for name, value in made.state_dict().items()}
    for item in range(dataset.num_items):
        parts = [weights["ids.weight"][item]]
        for name in ("text", "image"):
            raw = dataset.features[name]
            have = raw.values[raw.present].astype(np.float64)
            x = (raw.values[item] - have.mean(0)) / have.std(0)
            projected = weights[f"features.{name}.project.weight"] @ x + weights[f"features.{name}.project.bias"]
            parts.append(projected if raw.present[item] else weights[f"features.{name}.missing"])
        expected = weights["fuse.weight"] @ np.concatenate(parts) + weights["fuse.bias"]
        np.testing.assert_allclose(found[item], expected, atol=1e-5)
    plain = ItemInput(dataset, (), E)
    assert torch.equal(plain(history)[0], plain.ids.weight)
