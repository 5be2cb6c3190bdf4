"""Cached decoding of a real model: equal to its loops, to teacher forcing, and to exhaustive scoring."""

import numpy as np
import pytest
import reference_models as models
import torch
from reference_decoding import beam_list, exhaustive_list
from test_recommender import COUNT, HISTORY, L, N, catalogue, lengths, recommender

from bbqrec.data import Batch
from bbqrec.decoding import DeviceTrie, item_lists
from bbqrec.generation import generate
from bbqrec.schema import PAD
from bbqrec.semantic_ids import build_trie

POPULARITY = np.array([0, 3, 3, 1, 0, 2, 5, 1])


def crowded() -> np.ndarray:
    """A catalogue with shared prefixes and two collisions."""
    codes = catalogue()[0]
    codes[:5, 0] = codes[0, 0]
    codes[:3, 1] = codes[0, 1]
    codes[4], codes[7] = codes[3], codes[3]
    codes[6] = codes[5]
    return codes


def crowded_model(**changes):
    model = recommender(**changes)
    model.item_codes[:COUNT] = torch.from_numpy(crowded())
    return model


@pytest.mark.parametrize("beam", [2, 3, 20])
@pytest.mark.parametrize("history", ["prefix", "packed"])
@pytest.mark.parametrize("start", ["learned", "last", "every"])
def test_lists_equal_the_slow_ones(beam, history, start):
    model, codes, vectors = crowded_model(history=history, decoder_start=start), crowded(), catalogue()[1]
    trie = DeviceTrie.of(build_trie(codes, POPULARITY), "cpu")
    lists = item_lists(generate(model, trie, HISTORY, beam), trie, COUNT)
    weights = models.weights_of(model)
    for row, found in zip(HISTORY.tolist(), lists, strict=True):
        memory = models.encoder(weights, model.config, codes, vectors, [i for i in row if i != PAD])

        def scores(prefix, memory=memory):
            return models.next_scores(weights, model.config, codes, memory, prefix)

        slow = exhaustive_list(scores, codes, POPULARITY) if beam == 20 else beam_list(scores, codes, POPULARITY, beam)
        assert [item for item, _ in found] == [item for item, _ in slow]
        assert [s for _, s in found] == pytest.approx([s for _, s in slow], rel=1e-9)


def test_scores_equal_teacher_forcing():
    model, codes = crowded_model(), crowded()
    trie = DeviceTrie.of(build_trie(codes, POPULARITY), "cpu")
    for row, found in enumerate(item_lists(generate(model, trie, HISTORY, 50), trie, COUNT)):
        history = HISTORY[row : row + 1]
        assert sorted(item for item, _ in found) == list(range(COUNT))
        for item, score in found:
            batch = Batch(history=history, target=torch.tensor([[item]]), visible=lengths(history))
            assert score == pytest.approx(-model.loss(batch).item() * L * codes.shape[2], rel=1e-9)
            assert codes.max() < N
