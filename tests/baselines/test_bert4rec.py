"""BERT4Rec against the loops of its encoder and its output head."""

import math

import numpy as np
import pytest
import torch
from held_out import held_out_dataset
from reference_models import cloze_scores, sequence_encoder, weights_of

from bbqrec.baselines.bert4rec import BERT4Rec, BERT4RecConfig
from bbqrec.data import Batch
from bbqrec.schema import PAD

LAYERS, HEADS = 3, 2


def model(**changes) -> BERT4Rec:
    torch.manual_seed(2)
    config = BERT4RecConfig(d_model=6, layers=LAYERS, heads=HEADS, d_ff=5, max_history=5, **changes)
    made = BERT4Rec(config, held_out_dataset())
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return made.double().eval()


def reference_scores(made: BERT4Rec, history: list[int | None], place: int) -> np.ndarray:
    """Scores of the hidden item at a place; None is hidden."""
    w = {name.replace("encoder.", "sequence_encoder.", 1): value for name, value in weights_of(made).items()}
    ids = w["input.ids.weight"]
    x = np.array([w["mask"] if item is None else ids[item] for item in history])
    return cloze_scores(w, sequence_encoder(w, x, LAYERS, HEADS, causal=False)[place], ids)


def test_scores_equal_the_loops():
    made = model()
    for history in ([3], [5, 1, 9, 2], [4, 4, 11, 0, 7]):
        found = made.scores(torch.tensor([history]))[0].detach().numpy()
        np.testing.assert_allclose(found, reference_scores(made, [*history, None], len(history)), atol=1e-10)


def test_loss_is_the_mean_over_the_hidden_items():
    """Rows of which the last item is hidden, one of them padded."""
    made = model(last_share=0.999)
    none = torch.zeros(2, 1, dtype=torch.long)
    batch = Batch(history=torch.tensor([[3, 5, 1, 7], [8, 2, PAD, PAD]]), target=none, visible=none)
    expected = []
    for history, target in (([3, 5, 1, None], 7), ([8, None], 2)):
        row = reference_scores(made, history, len(history) - 1)
        expected.append(math.log(np.exp(row).sum()) - row[target])
    torch.manual_seed(0)
    loss, targets = made.loss(batch)
    assert targets == 2 and loss.item() == pytest.approx(np.mean(expected), abs=1e-10)


def test_both_sides_of_a_hidden_item_are_read_and_the_item_itself_is_not():
    made = model()
    history, hidden = torch.tensor([[3, 5, 1, 7]]), torch.tensor([[False, True, False, False]])
    with torch.no_grad():
        before = made.states(history, hidden)[0, 1]
        for place in range(4):
            changed = history.clone()
            changed[0, place] = 9
            moved = (made.states(changed, hidden)[0, 1] - before).abs().max() > 1e-6
            assert bool(moved) == (place != 1)


def test_layers_start_as_averages():
    for layer in BERT4Rec(BERT4RecConfig(d_model=6), held_out_dataset()).encoder.layers:
        assert torch.equal(layer.qkv.weight[12:], torch.eye(6)) and torch.equal(layer.out.weight, torch.eye(6))


def test_each_share_changes_what_is_learned():
    none = torch.zeros(1, 1, dtype=torch.long)
    batch = Batch(history=torch.tensor([[3, 5, 1, 7, 2]]), target=none, visible=none)
    counts = {}
    for shares in ((0.6, 0.0), (0.2, 0.0), (0.6, 0.999)):
        torch.manual_seed(0)
        counts[shares] = model(hidden_share=shares[0], last_share=shares[1]).loss(batch)[1]
    assert list(counts.values()) == [3, 1, 1]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"d_model": 8, "heads": 3}, "heads=3 must divide d_model=8"),
        ({"hidden_share": 0.0}, "hidden_share=0.0"),
        ({"hidden_share": 1.0}, "hidden_share=1.0"),
        ({"last_share": -0.1}, "last_share=-0.1"),
    ],
)
def test_bad_sizes_and_shares(wrong, said):
    with pytest.raises(ValueError, match=said):
        BERT4RecConfig(**wrong)
