"""Ranks of all users against scoring every item by teacher forcing, whatever the batches."""

import numpy as np
import pytest
import torch
from test_generation import POPULARITY, crowded, crowded_model
from test_recommender import COUNT, L, M

from bbqrec import evaluation
from bbqrec.data import Batch
from bbqrec.decoding import DeviceTrie
from bbqrec.evaluation import rank_users
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
    monkeypatch.setattr(evaluation, "generate", lambda m, t, h, b: sizes.append(len(h)) or generate(m, t, h, b))
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
