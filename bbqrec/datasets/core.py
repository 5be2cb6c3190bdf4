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


def index_interactions(
    users: np.ndarray | pd.Series, items: np.ndarray | pd.Series, times: np.ndarray | pd.Series | None, core: int = 0
) -> Interactions:
    """Columns of user IDs, item IDs (strings) and sortable times, a row per interaction -> indexed sequences.

    A user's items are ordered by (time, row); without times by row. Users and items are numbered in the order of their
    IDs, so the numbering does not depend on the order of the file. `core` filters first; without interactions an item
    or user has no number.
    """
    user, user_ids = pd.factorize(np.asarray(users, dtype=object), sort=True)
    item, item_ids = pd.factorize(np.asarray(items, dtype=object), sort=True)
    if core > 1:
        kept = k_core(user, item, core)
        used_users, user = np.unique(user[kept], return_inverse=True)
        used_items, item = np.unique(item[kept], return_inverse=True)
        user_ids, item_ids = user_ids[used_users], item_ids[used_items]
        times = None if times is None else np.asarray(times)[kept]
    order = np.argsort(user, kind="stable") if times is None else np.lexsort((np.asarray(times), user))
    return Interactions(
        user_ids=user_ids,
        item_ids=item_ids,
        offsets=np.concatenate([[0], np.cumsum(np.bincount(user, minlength=len(user_ids)))]),
        items=item[order].astype(np.int32),
    )
