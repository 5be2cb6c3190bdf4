"""Objective `children` against loops over the catalogue: the loss, its gradients, and the lists it ranks."""

import numpy as np
import pytest
import reference_models as models
import torch
from reference_decoding import likelihoods
from test_generation import POPULARITY, crowded, crowded_model
from test_recommender import COUNT, HISTORY, TARGETS, N, catalogue, lengths

from bbqrec.config import RecommenderConfig
from bbqrec.data import Batch
from bbqrec.decoding import DeviceTrie, item_lists
from bbqrec.generation import generate, scored_nodes
from bbqrec.recommender import Recommender
from bbqrec.schema import PAD
from bbqrec.semantic_ids import build_trie
from bbqrec.trie_likelihood import TrieLikelihood

FORMS = pytest.mark.parametrize("history", ["prefix", "packed"])
NODES = pytest.mark.parametrize("nodes", ["codes", "ids"])


def trie() -> DeviceTrie:
    return DeviceTrie.of(build_trie(crowded(), POPULARITY), "cpu")


def slow(model) -> list[list[float]]:
    """log P of every item's ID for each row of HISTORY."""
    weights, codes, vectors = models.weights_of(model), crowded(), catalogue()[1]
    prior = (POPULARITY.tolist(), weights["prior_weight"])
    found = []
    for row in HISTORY.tolist():
        memory = models.encoder(weights, model.config, codes, vectors, [i for i in row if i != PAD])

        def scores(prefix, memory=memory):
            of = models.next_scores if model.config.node_vectors == "codes" else models.all_logits
            return of(weights, model.config, codes, memory, prefix)

        found.append(likelihoods(scores, codes, *prior, model.config.node_vectors))
    return found


@FORMS
@NODES
def test_loss_is_the_mean_of_the_targets(history, nodes):
    model = crowded_model(history=history, objective="children", node_vectors=nodes)
    expected = slow(model)
    for targets in (TARGETS, (TARGETS + 3) % COUNT, torch.tensor([[3], [7]])):
        batch = Batch(history=HISTORY, target=targets, visible=lengths(HISTORY))
        mean = np.mean([-row[target] for row, target in zip(expected, targets[:, 0].tolist(), strict=True)])
        assert TrieLikelihood(trie())(model, batch).item() == pytest.approx(mean, rel=1e-9)


@FORMS
@NODES
def test_lists_are_ordered_by_it_and_sum_to_one(history, nodes):
    model = crowded_model(history=history, objective="children", node_vectors=nodes)
    lists = item_lists(generate(model, trie(), HISTORY, 50), trie(), COUNT)
    for row, found in zip(slow(model), lists, strict=True):
        assert sorted(item for item, _ in found) == list(range(COUNT))
        assert [s for _, s in found] == pytest.approx([row[item] for item, _ in found], rel=1e-9)
        assert [s for _, s in found] == sorted((s for _, s in found), reverse=True)
        by_id = {tuple(crowded()[item].flatten()): np.exp(score) for item, score in found}
        assert sum(by_id.values()) == pytest.approx(1)


@NODES
def test_a_narrow_beam_keeps_the_probabilities(nodes):
    model = crowded_model(objective="children", node_vectors=nodes)
    whole = item_lists(generate(model, trie(), HISTORY, 50), trie(), COUNT)
    for all_items, few in zip(whole, item_lists(generate(model, trie(), HISTORY, 2), trie(), COUNT), strict=True):
        scores = dict(all_items)
        assert few and all(score == pytest.approx(scores[item]) for item, score in few)


def test_packed_targets_count_once_each():
    model = crowded_model(history="packed", objective="children")
    likelihood = TrieLikelihood(trie())
    target, visible = torch.tensor([[2, 4, 1, 6], [5, 7, 0, 0]]), torch.tensor([[1, 0, 3, 4], [1, 2, 0, 0]])
    together = likelihood(model, Batch(history=HISTORY, target=target, visible=visible)).item()
    single = [
        likelihood(
            model,
            Batch(history=HISTORY[b : b + 1], target=target[b : b + 1, [s]], visible=visible[b : b + 1, [s]]),
        ).item()
        for b, s in (visible > 0).nonzero().tolist()
    ]
    assert together == pytest.approx(np.mean(single), rel=1e-9)


def test_an_only_child_costs_nothing():
    """Item 5's first triple is its own and item 6's, whose whole IDs are equal: nothing below the first level."""
    model = crowded_model(objective="children")
    batch = Batch(history=HISTORY, target=torch.full_like(TARGETS, 5), visible=lengths(HISTORY))
    TrieLikelihood(trie())(model, batch).backward()
    assert model.heads.grad[0].abs().sum() > 0
    assert model.heads.grad[1:].abs().sum() == 0
    other = crowded_model(objective="children")
    batch = Batch(history=HISTORY, target=torch.full_like(TARGETS, 1), visible=lengths(HISTORY))
    TrieLikelihood(trie())(other, batch).backward()
    assert all(level.abs().sum() > 0 for level in other.heads.grad)


def test_vectors_of_ids_let_the_first_level_learn_from_all_codes():
    """The first level alone decides on item 5; which IDs it is compared with depends on their lower codes, too."""
    model = crowded_model(objective="children", node_vectors="ids")
    batch = Batch(history=HISTORY, target=torch.full_like(TARGETS, 5), visible=lengths(HISTORY))
    TrieLikelihood(trie())(model, batch).backward()
    assert all(level.abs().sum() > 0 for level in model.heads.grad)


def test_vectors_of_ids_need_the_objective_children():
    with pytest.raises(
        ValueError, match="node_vectors=ids needs objective children: with objective=codes set node_vectors"
    ):
        RecommenderConfig(node_vectors="ids")


def test_vectors_computed_before_give_the_same_lists():
    model = crowded_model(objective="children", node_vectors="ids")
    vectors = scored_nodes(model, trie())
    again = generate(model, trie(), HISTORY, 5, vectors)
    assert torch.equal(again.scores, generate(model, trie(), HISTORY, 5).scores)
    assert scored_nodes(crowded_model(objective="children"), trie()) is None


def test_the_prior_is_learned_and_starts_at_popularity():
    model = crowded_model(objective="children")
    batch = Batch(history=HISTORY, target=torch.full_like(TARGETS, 1), visible=lengths(HISTORY))
    TrieLikelihood(trie())(model, batch).backward()
    assert (model.prior_weight.grad != 0).all()
    fresh = Recommender(RecommenderConfig(objective="children"), torch.from_numpy(crowded()), torch.zeros(COUNT, 3), N)
    assert fresh.prior_weight.tolist() == [1.0] * crowded().shape[1]
    assert crowded_model().prior_weight is None


def test_label_smoothing_is_not_ignored_silently():
    with pytest.raises(ValueError, match=r"label_smoothing=0\.1 needs objective codes"):
        RecommenderConfig(objective="children", label_smoothing=0.1)
