"""Interactions by ID -> indexed, ordered sequences, with optional k-core filtering."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Bool, Int


@dataclass(frozen=True, kw_only=True)
class Interactions:
    """User u's items, oldest first, are `items[offsets[u]:offsets[u + 1]]`; users and items are sorted by their IDs."""

    user_ids: np.ndarray
    item_ids: np.ndarray
    offsets: Int[np.ndarray, "U1"]
    items: Int[np.ndarray, "n"]


def k_core(users: Int[np.ndarray, "n"], items: Int[np.ndarray, "n"], k: int) -> Bool[np.ndarray, "n"]:
    """The interactions left when users and items with fewer than k are removed until there are none."""
    kept = np.ones(len(users), dtype=bool)
    while True:
        enough = np.ones(len(users), dtype=bool)
        for side in (users, items):
            enough &= np.bincount(side[kept], minlength=side.max(initial=0) + 1)[side] >= k
        if not (kept & ~enough).any():
            return kept
        kept &= enough


@dataclass(frozen=True, kw_only=True)
class Columns:
    """A row per interaction: numbers of users and items (places in the arrays of their IDs), and sortable times."""

    users: Int[np.ndarray, "n"]
    user_ids: np.ndarray
    items: Int[np.ndarray, "n"]
    item_ids: np.ndarray
    times: np.ndarray | None


def index_interactions(
    users: np.ndarray | pd.Series, items: np.ndarray | pd.Series, times: np.ndarray | pd.Series | None, core: int = 0
) -> Interactions:
    """`index_columns` of columns of user IDs, item IDs (strings) and sortable times."""
    user, user_ids = pd.factorize(np.asarray(users, dtype=object))
    item, item_ids = pd.factorize(np.asarray(items, dtype=object))
    times = None if times is None else np.asarray(times)
    return index_columns(Columns(users=user, user_ids=user_ids, items=item, item_ids=item_ids, times=times), core)


def index_columns(columns: Columns, core: int = 0) -> Interactions:
    """Indexed sequences.

    A user's items are ordered by (time, row); without times by row. Users and items are numbered in the order of their
    IDs, so the numbering does not depend on the order of the file. `core` filters first; without interactions an item
    or user has no number.
    """
    user, item, times = columns.users, columns.items, columns.times
    if core > 1:
        kept = k_core(user, item, core)
        user, item, times = user[kept], item[kept], None if times is None else times[kept]
    user, user_ids = _in_order(user, columns.user_ids)
    item, item_ids = _in_order(item, columns.item_ids)
    order = np.argsort(user, kind="stable") if times is None else np.lexsort((times, user))
    return Interactions(
        user_ids=user_ids,
        item_ids=item_ids,
        offsets=np.concatenate([[0], np.cumsum(np.bincount(user, minlength=len(user_ids)))]),
        items=item[order],
    )


def _in_order(numbers: Int[np.ndarray, "n"], ids: np.ndarray) -> tuple[Int[np.ndarray, "n"], np.ndarray]:
    """The numbers that occur, renumbered in the order of their IDs, and these IDs."""
    used = np.flatnonzero(np.bincount(numbers, minlength=len(ids)))
    order = used[np.argsort(ids[used], kind="stable")]
    place = np.zeros(len(ids), dtype=np.int32)
    place[order] = np.arange(len(order))
    return place[numbers], ids[order]
