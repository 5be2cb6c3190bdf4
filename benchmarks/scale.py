"""Catalogues from 10^4 to 10^7 items with random IDs: what the trie and decoding cost per item and per user."""

import itertools
from collections.abc import Callable, Iterator

import numpy as np
import torch
from jaxtyping import Int

from bbqrec.config import RecommenderConfig
from bbqrec.decoding import DeviceTrie
from bbqrec.evaluation import rank_users
from bbqrec.examples import Examples
from bbqrec.recommender import Recommender
from bbqrec.semantic_ids import Trie, build_trie
from benchmarks.inputs import DEVICE, Inputs
from benchmarks.measure import Limit, Row, alternate, row, timed

SIZES = (10**4, 10**5, 10**6, 10**7)
CODES = 256
SHAPES = {"TIGER's": (4, 1), "composite": (3, 3)}
"""(levels, components)."""


def catalogues(inputs: Inputs, rounds: int) -> Iterator[Row | Limit]:
    """Each size against the one before: what an item of the trie and a decoded user cost more."""
    for name, shape in SHAPES.items():
        codes = {size: _codes(size, *shape) for size in SIZES}
        turns = {f"{size:,} items": timed(_building(codes[size])) for size in SIZES}
        rates = alternate(turns, min(rounds, 2))
        for smaller, larger in itertools.pairwise(SIZES):
            who = (f"{larger:,} items", f"{smaller:,} items")
            yield row(f"Trie of {name} IDs, per item", "items", rates, *who, at_most=3.0)
        trie = build_trie(codes[SIZES[-1]], np.zeros(SIZES[-1], dtype=np.int64))
        yield Limit(name=f"Trie of {SIZES[-1]:,} {name} IDs", unit="GiB", value=_bytes(trie) / 2**30, at_most=2.0)
        turns = {f"{size:,} items": timed(_decoding(codes[size])) for size in SIZES}
        rates = alternate(turns, min(rounds, 2))
        for smaller, larger in itertools.pairwise(SIZES):
            who = (f"{larger:,} items", f"{smaller:,} items")
            yield row(f"Decoding {name} IDs, beam 50, per user", "users", rates, *who, at_most=10.0)


def _codes(items: int, levels: int, components: int) -> Int[np.ndarray, "I L M"]:
    return np.random.default_rng(0).integers(0, CODES, (items, levels, components), dtype=np.int32)


def _building(codes: Int[np.ndarray, "I L M"]) -> Callable[[], float]:
    popularity = np.random.default_rng(1).integers(0, 100, len(codes))
    return lambda: len(build_trie(codes, popularity).items)


def _bytes(trie: Trie) -> int:
    arrays = (*trie.codes, *trie.first, *trie.popularity, trie.items, trie.leaf, trie.place)
    return sum(array.nbytes for array in arrays)


def _decoding(codes: Int[np.ndarray, "I L M"], users: int = 16) -> Callable[[], float]:
    torch.manual_seed(0)
    config = RecommenderConfig(similarity=False)
    model = Recommender(config, torch.from_numpy(codes), torch.zeros(0, 1), CODES).eval()
    trie = DeviceTrie.of(build_trie(codes, np.zeros(len(codes), dtype=np.int64)), DEVICE)
    drawn = np.random.default_rng(2).integers(0, len(codes), (users, 9))
    examples = Examples(history=drawn[:, 1:], target=drawn[:, :1], visible=np.full((users, 1), 8))
    return lambda: len(rank_users(model, trie, examples, config.beam))
