"""Collisions, layouts and the array trie against plain Python sets."""

from collections import defaultdict

import numpy as np
import reference as ref
from hypothesis import given
from hypothesis import strategies as st

from bbqrec.semantic_ids import Trie, build_trie, collisions, disambiguated, flat


@st.composite
def catalogues(draw) -> tuple[np.ndarray, np.ndarray]:
    """Codes (I, L, M) with many collisions, and popularities with many ties."""
    items, levels, components = draw(st.integers(1, 14)), draw(st.integers(1, 3)), draw(st.integers(1, 3))
    generator = np.random.default_rng(draw(st.integers(0, 999)))
    high = draw(st.integers(1, 4))
    return generator.integers(0, high, (items, levels, components)), generator.integers(0, 3, items)


@given(catalogues())
def test_collisions_equal_the_three_definitions(catalogue):
    codes, _ = catalogue
    found = collisions(codes)
    assert (found.colliding_items, found.excess, found.shared_ids) == ref.collisions(codes)
    assert found.items == len(codes) and found.distinct == len(codes) - found.excess


def test_collisions_by_hand():
    codes = np.array([[[1, 2]], [[3, 2]], [[1, 2]], [[0, 0]], [[3, 2]], [[1, 2]]])
    found = collisions(codes)
    assert (found.items, found.distinct, found.colliding_items, found.excess, found.shared_ids) == (6, 3, 5, 3, 2)


def test_flat_goes_level_by_level():
    codes = np.arange(2 * 3 * 4).reshape(2, 3, 4)
    assert flat(codes).shape == (2, 12, 1)
    assert flat(codes)[1, :, 0].tolist() == list(range(12, 24))


@given(catalogues())
def test_disambiguated_numbers_each_group_by_popularity_then_index(catalogue):
    codes, popularity = catalogue
    found = disambiguated(codes, popularity)
    np.testing.assert_array_equal(found[:, :-1], codes)
    groups = defaultdict(list)
    for item in range(len(codes)):
        groups[codes[item].tobytes()].append(item)
    for items in groups.values():
        for number, item in enumerate(sorted(items, key=lambda i: (-popularity[i], i))):
            assert found[item, -1].tolist() == [number] * codes.shape[2]
    assert collisions(found).excess == 0


def test_disambiguation_numbers_as_many_items_as_share_an_id():
    codes = np.zeros((4, 2, 1), dtype=int)
    assert disambiguated(codes, np.arange(4))[:, -1, 0].tolist() == [3, 2, 1, 0]


def spelt(trie: Trie, popularity: np.ndarray) -> dict[tuple, list[int]]:
    """Walks the trie: ID -> its items in their order. Every node has the popularity of the items below it."""
    found = {}

    def walk(depth: int, node: int, prefix: tuple) -> int:
        name = (*prefix, tuple(trie.codes[depth][node].tolist()))
        below = range(trie.first[depth][node], trie.first[depth][node + 1])
        if depth + 1 == trie.levels:
            assert name not in found
            found[name] = [int(trie.items[i]) for i in below]
            total = sum(int(popularity[item]) for item in found[name])
        else:
            assert len(below) > 0
            total = sum(walk(depth + 1, child, name) for child in below)
        assert trie.popularity[depth][node] == total
        return total

    for root in range(len(trie.codes[0])):
        walk(0, root, ())
    return found


@given(catalogues())
def test_trie_spells_every_id_once_with_its_items_in_order(catalogue):
    codes, popularity = catalogue
    trie = build_trie(codes, popularity)
    expected = defaultdict(list)
    for item in sorted(range(len(codes)), key=lambda i: (-popularity[i], i)):
        expected[tuple(tuple(level) for level in codes[item].tolist())].append(item)
    assert spelt(trie, popularity) == dict(expected)
    for depth in range(trie.levels):
        prefixes = {item[: depth + 1].tobytes() for item in codes}
        assert len(trie.codes[depth]) == len(prefixes) == len(trie.first[depth]) - 1


@given(catalogues())
def test_leaf_and_place_point_at_the_item(catalogue):
    codes, popularity = catalogue
    trie = build_trie(codes, popularity)
    for item in range(len(codes)):
        assert trie.items[trie.first[-1][trie.leaf[item]] + trie.place[item]] == item
        assert trie.first[-1][trie.leaf[item]] + trie.place[item] < trie.first[-1][trie.leaf[item] + 1]
