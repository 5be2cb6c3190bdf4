"""Ranks of all users against scoring every item by teacher forcing, whatever the batches."""

import numpy as np
import pytest
import torch
from test_generation import POPULARITY, crowded, crowded_model
from test_recommender import COUNT, L, M

from bbqrec import evaluation
from bbqrec.data import Batch
from bbqrec.decoding import DeviceTrie
from bbqrec.evaluation import rank_users, rank_users_by_score, score_ranks
from bbqrec.examples import Examples
from bbqrec.generation import generate
from bbqrec.schema import PAD, UNRANKED
from bbqrec.semantic_ids import build_trie

USERS, LONGEST = 11, 5


def users() -> Examples:
    generator = np.random.default_rng(3)
    lengths = generator.integers(1, LONGEST + 1, USERS)
    history = generator.integers(0, COUNT, (USERS, LONGEST))
    history[np.arange(LONGEST) >= lengths[:, None]] = PAD
    return Examples(history=history, target=generator.integers(0, COUNT, (USERS, 1)), visible=lengths[:, None])


def expected_ranks(model) -> list[int]:
    """Sorts the catalogue of each user by (score, popularity, index)."""
    ranks, examples = [], users()
    for row in range(USERS):
        history = torch.from_numpy(examples.history[row : row + 1, : examples.visible[row, 0]])
        visible = torch.tensor([[history.shape[1]]])
        scores = [
            -model.loss(Batch(history=history, target=torch.tensor([[item]]), visible=visible)).item() * L * M
            for item in range(COUNT)
        ]
        order = sorted(range(COUNT), key=lambda i: (-round(scores[i], 9), -POPULARITY[i], i))
        ranks.append(order.index(examples.target[row, 0]) + 1)
    return ranks


@pytest.mark.parametrize("history", ["prefix", "packed"])
@pytest.mark.parametrize("in_flight", [1, 50, 8192])
def test_wide_beam_ranks_equal_exhaustive_ones_in_the_users_order(history, in_flight):
    model = crowded_model(history=history)
    trie = DeviceTrie.of(build_trie(crowded(), POPULARITY), "cpu")
    found = rank_users(model, trie, users(), 20, beams_in_flight=in_flight)
    assert found.dtype == np.int32 and found.tolist() == expected_ranks(model)


def test_a_large_catalogue_is_decoded_for_few_users_at_a_time(monkeypatch):
    model, sizes = crowded_model(), []
    trie = DeviceTrie.of(build_trie(crowded(), POPULARITY), "cpu")
    expected = rank_users(model, trie, users(), 20)
    monkeypatch.setattr(evaluation, "SCORES_IN_FLIGHT", 2 * len(trie.codes[0]))
    monkeypatch.setattr(evaluation, "generate", lambda m, t, h, *rest: sizes.append(len(h)) or generate(m, t, h, *rest))
    assert rank_users(model, trie, users(), 20).tolist() == expected.tolist()
    assert max(sizes) <= 2 and sum(sizes) == USERS


def test_narrow_beam_leaves_the_rest_unranked_and_the_mode_is_restored():
    model = crowded_model().train()
    trie = DeviceTrie.of(build_trie(crowded(), POPULARITY), "cpu")
    found = rank_users(model, trie, users(), 1)
    assert model.training
    wide = rank_users(model.eval(), trie, users(), 20)
    assert not model.training
    assert UNRANKED in found and ((found == wide) | (found == UNRANKED) | (found < 4)).all()


def sorted_ranks(scores: np.ndarray, target: np.ndarray, priority: np.ndarray) -> list[int]:
    orders = [sorted(range(len(row)), key=lambda item, row=row: (-row[item], priority[item])) for row in scores]
    return [order.index(t) + 1 for order, t in zip(orders, target, strict=True)]


def test_ranks_by_score_equal_a_sort_with_ties_by_priority():
    generator = np.random.default_rng(4)
    for values in (3, 5, 10**6):  # many equal scores, some, none
        scores = generator.integers(0, values, (40, 13)).astype(np.float32)
        target, priority = generator.integers(0, 13, 40), generator.permutation(13)
        found = score_ranks(*map(torch.from_numpy, (scores, target, priority)))
        assert found.tolist() == sorted_ranks(scores, target, priority)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_score_that_is_not_finite_ranks_nobody(bad):
    scores = torch.randn(3, 5)
    scores[1, 2] = bad
    with pytest.raises(FloatingPointError, match="not finite"):
        score_ranks(scores, torch.zeros(3, dtype=torch.long), torch.arange(5))


class Scores(torch.nn.Module):
    """A user's scores are a function of their last item; in training mode they would be noise."""

    def scores(self, history):
        last = history.gather(1, ((history >= 0).sum(1) - 1)[:, None])
        noise = torch.rand(len(history), 7) if self.training else 0.0
        return (torch.arange(7) * (1 + last) % 5).float() + noise


@pytest.mark.parametrize("in_flight", [1, 20, None])
def test_users_ranked_by_score_come_back_in_their_order(in_flight):
    history = np.array([[3, PAD, PAD], [1, 2, PAD], [4, 0, 5], [6, PAD, PAD]])
    target = np.array([[2], [6], [0], [3]])
    examples = Examples(history=history, target=target, visible=np.ones((4, 1), dtype=int))
    model = Scores().train()
    found = rank_users_by_score(model, torch.arange(7), examples, in_flight)
    last = np.array([3, 2, 5, 6])
    scores = np.arange(7)[None] * (1 + last[:, None]) % 5
    assert found.tolist() == sorted_ranks(scores, target[:, 0], np.arange(7)) and model.training
