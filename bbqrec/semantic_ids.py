"""Item -> semantic ID, collisions, and the array trie of the IDs that exist."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int


@dataclass(frozen=True, kw_only=True)
class Collisions:
    """Three ways to count items that share an ID; the paper's Table 5 prints `excess`."""

    items: int
    colliding_items: int
    """Items whose ID belongs to another item too."""
    excess: int
    """|items| - |distinct IDs|."""
    shared_ids: int
    """IDs that belong to more than one item."""

    @property
    def distinct(self) -> int:
        return self.items - self.excess


def collisions(codes: Int[np.ndarray, "I L M"]) -> Collisions:
    _, counts = np.unique(codes.reshape(len(codes), -1), axis=0, return_counts=True)
    shared = counts[counts > 1]
    return Collisions(
        items=len(codes),
        colliding_items=int(shared.sum()),
        excess=len(codes) - len(counts),
        shared_ids=len(shared),
    )


def flat(codes: Int[np.ndarray, "I L M"]) -> Int[np.ndarray, "I LM 1"]:
    """One code a position: level by level, the components in their order."""
    return codes.reshape(len(codes), -1, 1)


def disambiguated(codes: Int[np.ndarray, "I L M"], popularity: Int[np.ndarray, "I"]) -> Int[np.ndarray, "I L1 M"]:
    """TIGER's extra level: items that share an ID are numbered 0, 1, ... by popularity, then index."""
    _, group = np.unique(codes.reshape(len(codes), -1), axis=0, return_inverse=True)
    order = np.lexsort((np.arange(len(codes)), -popularity, group))
    grouped = group[order]
    starts = np.flatnonzero(np.diff(grouped, prepend=-1))
    number = np.empty(len(codes), dtype=codes.dtype)
    number[order] = np.arange(len(codes)) - np.repeat(starts, np.diff(np.append(starts, len(codes))))
    return np.concatenate((codes, np.repeat(number[:, None, None], codes.shape[2], axis=2)), axis=1)


@dataclass(frozen=True, kw_only=True)
class Trie:
    """Prefixes of the existing IDs as arrays, depth by depth.

    Node j of depth l has the codes `codes[l][j]` (M,); its children are the nodes
    `first[l][j]:first[l][j + 1]` of depth l + 1. At the last depth the same slice of `items` holds the items of the ID,
    most popular first. `popularity[l][j]` is that of the items below node j together. `leaf[i]` is item i's node at the
    last depth, `place[i]` its position there, from 0.
    """

    codes: tuple[Int[np.ndarray, "_ M"], ...]
    first: tuple[Int[np.ndarray, "_"], ...]
    popularity: tuple[Int[np.ndarray, "_"], ...]
    items: Int[np.ndarray, "I"]
    leaf: Int[np.ndarray, "I"]
    place: Int[np.ndarray, "I"]

    @property
    def levels(self) -> int:
        return len(self.codes)


def build_trie(codes: Int[np.ndarray, "I L M"], popularity: Int[np.ndarray, "I"]) -> Trie:
    """Sorted once; each depth is where the sorted prefixes change. O(I log I) time, O(I L M) memory."""
    count, levels, _ = codes.shape
    keys = codes.reshape(count, -1)
    order = np.lexsort((np.arange(count), -popularity, *keys.T[::-1]))
    ordered = codes[order]
    changed = np.zeros(count, dtype=bool)
    starts = []
    for level in range(levels):
        new = (ordered[1:, level] != ordered[:-1, level]).any(-1)
        changed[1:] |= new
        changed[:1] = True
        starts.append(np.flatnonzero(changed))
    ends = [*starts[1:], np.arange(count)]
    leaf, place = np.empty(count, dtype=np.int64), np.empty(count, dtype=np.int64)
    leaf[order] = np.cumsum(changed) - 1
    place[order] = np.arange(count) - starts[-1][leaf[order]]
    return Trie(
        codes=tuple(ordered[start, level] for level, start in enumerate(starts)),
        first=tuple(np.append(np.searchsorted(end, start), len(end)) for start, end in zip(starts, ends, strict=True)),
        popularity=tuple(np.add.reduceat(popularity[order], start) for start in starts),
        items=order,
        leaf=leaf,
        place=place,
    )
