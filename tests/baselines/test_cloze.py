"""What cloze training hides, and how a next item is asked for."""

from collections import Counter

import pytest
import torch

from bbqrec.baselines.cloze import Cloze, hide, with_a_hidden_item
from bbqrec.schema import PAD

HISTORY = torch.tensor([[4, 7, 1, 7, 2], [5, 3, PAD, PAD, PAD], [6, 0, 8, PAD, PAD]])


def drawn(share: float, last: float, times: int = 3000) -> list[torch.Tensor]:
    torch.manual_seed(1)
    return [hide(HISTORY, share, last) for _ in range(times)]


@pytest.mark.parametrize(("share", "counts"), [(0.6, [3, 1, 2]), (0.1, [1, 1, 1]), (0.95, [4, 1, 2])])
def test_a_share_of_each_row_is_hidden_and_never_all(share, counts):
    assert all(hidden.sum(1).tolist() == counts for hidden in drawn(share, 0.0, 50))


def test_every_item_is_hidden_as_often_as_another_and_padding_never():
    often = torch.stack(drawn(0.6, 0.0)).float().mean(0)
    expected = torch.tensor([[0.6] * 5, [0.5, 0.5, 0, 0, 0], [2 / 3, 2 / 3, 2 / 3, 0, 0]])
    torch.testing.assert_close(often, expected, atol=4 * (0.25 / 3000) ** 0.5, rtol=0)
    assert not often[HISTORY == PAD].any()


def test_items_are_hidden_independently_of_their_neighbours():
    """All ten choices of three places out of five, equally often."""
    found = Counter(tuple(hidden[0].tolist()) for hidden in drawn(0.6, 0.0))
    assert len(found) == 10 and max(found.values()) < 1.4 * min(found.values())


def test_some_rows_hide_their_last_item_alone():
    only_last = torch.tensor([[0, 0, 0, 0, 1], [0, 1, 0, 0, 0], [0, 0, 1, 0, 0]], dtype=torch.bool)
    assert all(torch.equal(hidden, only_last) for hidden in drawn(0.6, 1.0, 20))
    share = torch.stack([(hidden == only_last).all(1)[0] for hidden in drawn(0.6, 0.3)]).float().mean()
    assert share.item() == pytest.approx(0.3, abs=4 * (0.3 * 0.7 / 3000) ** 0.5)
    together = [(hidden == only_last).all(1) for hidden in drawn(0.6, 0.3)]
    assert any(rows[0] and not rows[2] for rows in together)  # each row draws for itself


def test_a_single_item_is_hidden():
    torch.manual_seed(1)
    assert hide(torch.tensor([[3, PAD]]), 0.5, 0.0).tolist() == [[True, False]]


def test_a_next_item_is_a_hidden_one_behind_the_last():
    longer, hidden = with_a_hidden_item(HISTORY)
    assert longer[:, :5][HISTORY != PAD].tolist() == HISTORY[HISTORY != PAD].tolist()
    assert hidden.nonzero().tolist() == [[0, 5], [1, 2], [2, 3]]
    assert ((longer != PAD) == torch.cat([HISTORY != PAD, torch.zeros(3, 1, dtype=bool)], 1) | hidden).all()


def test_loss_and_scores_are_of_the_hidden_places():
    """With states that spell out their item and place, against a loop."""
    torch.manual_seed(3)
    cloze = Cloze(9, 2, 0.6, 0.2).double()
    for parameter in cloze.parameters():
        torch.nn.init.normal_(parameter)
    items = torch.randn(9, 2, dtype=torch.float64)
    asked = []

    def states(history, hidden):
        asked.append(hidden)
        places = torch.arange(history.shape[1]).expand(history.shape)
        return torch.stack([history + 10 * places, places - 3], dim=2).double()

    loss, count = cloze.loss(states, HISTORY, items)
    expected = []
    for b, t in asked[0].nonzero().tolist():
        item = int(HISTORY[b, t])
        logits = items @ cloze.head(torch.tensor([item + 10 * t, t - 3]).double()) + cloze.bias
        expected.append(torch.logsumexp(logits, 0) - logits[item])
    assert count == len(expected) == int(asked[0].sum())
    torch.testing.assert_close(loss, torch.stack(expected).mean())

    found = cloze.scores(states, HISTORY, items)
    for row, place in zip(found, (5, 2, 3), strict=True):
        logits = items @ cloze.head(torch.tensor([10.0 * place, place - 3]).double()) + cloze.bias
        torch.testing.assert_close(row, logits)
