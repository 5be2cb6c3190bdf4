"""Trie-constrained beam search on random scores against filtering and sorting the catalogue."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference_decoding import RandomScores, beam_list, exhaustive_list, rank_of

from bbqrec.decoding import Beams, DeviceTrie, beam_search, item_lists, target_ranks
from bbqrec.schema import UNRANKED
from bbqrec.semantic_ids import build_trie

USERS = 3


class Followed:
    """The product's next-scores interface over `RandomScores`: remembers each beam's prefix by its parents."""

    def __init__(self, scores: RandomScores) -> None:
        self.scores = scores
        self.prefixes = [[()] for _ in range(USERS)]

    def __call__(self, level: int, parents: torch.Tensor, codes: torch.Tensor) -> torch.Tensor:
        if level > 0:
            self.prefixes = [
                [(*self.prefixes[b][parent], tuple(code)) for parent, code in zip(row, names, strict=True)]
                for b, (row, names) in enumerate(zip(parents.tolist(), codes.tolist(), strict=True))
            ]
        assert all(len(prefix) == level for row in self.prefixes for prefix in row)
        return torch.from_numpy(
            np.array([[self.scores(b, prefix) for prefix in row] for b, row in enumerate(self.prefixes)])
        )


@st.composite
def cases(draw) -> tuple[np.ndarray, np.ndarray, RandomScores]:
    items, levels, components, size = (draw(st.integers(*r)) for r in ((1, 20), (1, 3), (1, 3), (2, 5)))
    seed = draw(st.integers(0, 10_000))
    generator = np.random.default_rng(seed)
    codes = generator.integers(0, size, (items, levels, components))
    return codes, generator.integers(0, 3, items), RandomScores(seed, components, size)


def searched(case, beam: int):
    codes, popularity, scores = case
    trie = DeviceTrie.of(build_trie(codes, popularity), "cpu")
    beams = beam_search(Followed(scores), trie, USERS, beam)
    return beams, trie, item_lists(beams, trie, len(codes))


def same(found: list[tuple[int, float]], expected: list[tuple[int, float]]) -> None:
    assert [item for item, _ in found] == [item for item, _ in expected]
    assert [s for _, s in found] == pytest.approx([s for _, s in expected], rel=1e-9)


@settings(deadline=None, max_examples=40)
@given(cases())
def test_a_wide_beam_equals_exhaustive_scoring(case):
    codes, popularity, scores = case
    beams, trie, lists = searched(case, len(codes))
    for user in range(USERS):
        expected = exhaustive_list(lambda prefix, user=user: scores(user, prefix), codes, popularity)
        same(lists[user], expected)
        for item in range(len(codes)):
            rank = target_ranks(beams, trie, torch.full((USERS,), item))[user]
            assert rank == rank_of(expected, item)


@settings(deadline=None, max_examples=60)
@given(cases(), st.integers(1, 6))
def test_a_narrow_beam_equals_the_slow_search(case, beam):
    codes, popularity, scores = case
    beams, trie, lists = searched(case, beam)
    for user in range(USERS):
        expected = beam_list(lambda prefix, user=user: scores(user, prefix), codes, popularity, beam)
        same(lists[user], expected)
        for item in range(len(codes)):
            rank = target_ranks(beams, trie, torch.full((USERS,), item))[user]
            assert rank == (rank_of(expected, item) or UNRANKED)


@settings(deadline=None, max_examples=40)
@given(cases(), st.integers(1, 6))
def test_every_beam_is_an_item_and_none_occurs_twice(case, beam):
    codes, _, _ = case
    beams, trie, lists = searched(case, beam)
    for nodes, scores in zip(beams.nodes.tolist(), beams.scores.tolist(), strict=True):
        alive = [n for n, s in zip(nodes, scores, strict=True) if s > -np.inf]
        assert alive and len(set(alive)) == len(alive) and 0 <= min(alive) <= max(alive) < len(trie.codes[-1])
    for ranked in lists:
        items = [item for item, _ in ranked]
        assert len(set(items)) == len(items) and set(items) <= set(range(len(codes)))
        values = [score for _, score in ranked]
        assert values == sorted(values, reverse=True)


def test_items_of_one_id_follow_popularity_then_index():
    codes = np.array([[[1]], [[0]], [[1]], [[1]], [[0]]])
    popularity = np.array([4, 2, 7, 7, 2])
    trie = DeviceTrie.of(build_trie(codes, popularity), "cpu")
    logs = torch.log(torch.tensor([[[[0.3, 0.7]]]]))
    beams = beam_search(lambda level, parents, names: logs, trie, 1, 9)
    assert [item for item, _ in item_lists(beams, trie, 9)[0]] == [2, 3, 0, 1, 4]
    assert [item for item, _ in item_lists(beams, trie, 2)[0]] == [2, 3]
    ranks = [target_ranks(beams, trie, torch.tensor([i])).item() for i in range(5)]
    assert ranks == [3, 4, 1, 2, 5]


def test_an_empty_place_of_a_beam_holds_nothing():
    codes = np.array([[[0]], [[1]], [[1]], [[2]]])
    trie = DeviceTrie.of(build_trie(codes, np.zeros(4, dtype=int)), "cpu")
    beams = Beams(nodes=torch.tensor([[1, 2, 0]]), scores=torch.tensor([[-1.0, -2.0, -torch.inf]]))
    assert [item for item, _ in item_lists(beams, trie, 9)[0]] == [1, 2, 3]
    assert [target_ranks(beams, trie, torch.tensor([i])).item() for i in range(4)] == [UNRANKED, 1, 2, 3]
