"""Any interactions table, with an optional items table and feature files, -> a canonical data set.

Users and items are numbered in the order of their IDs (as strings). The catalogue consists of the items that somebody
interacted with: an item that is only listed can never be a target, and Table 1 would not count it either.
"""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from bbqrec.datasets.canonical import Prepared, save_dataset
from bbqrec.datasets.core import Columns, index_columns
from bbqrec.datasets.features import align, read_features
from bbqrec.datasets.interactions import read_columns
from bbqrec.datasets.progress import progress_bar
from bbqrec.datasets.tables import read_table
from bbqrec.errors import InputError
from bbqrec.schema import COMPONENTS


@dataclass(frozen=True, kw_only=True)
class TabularSource:
    """Tables (parquet, csv or tsv, also .gz) and feature files."""

    interactions: Path
    """Table with a row per interaction."""
    items: Path | None = None
    """Table with a row per item: its ID and title."""
    features: dict[str, Path] = field(default_factory=dict)
    """Feature files, text=PATH image=PATH: .npz (item_ids, features), .npy (in the order of --items) or parquet."""
    user_column: str = "user_id"
    """Name of the user ID in the interactions table."""
    item_column: str = "item_id"
    """Name of the item ID in every table."""
    time_column: str | None = "timestamp"
    """Orders a user's items, ties by row; None takes the order of the rows."""
    title_column: str = "title"
    """Name of the title in the items table."""
    core: int = 0
    """Remove users and items with fewer interactions than this, until there are none; 0 keeps all."""

    def __post_init__(self) -> None:
        if self.core < 0:
            raise InputError(f"--core {self.core} is negative", "give 0 to keep all")


def prepare_tabular(source: TabularSource, out: Path, name: str) -> Prepared:
    """Read the source and write the data set folder `out`; raises InputError naming file, row or item."""
    unknown = [m for m in source.features if m not in COMPONENTS or m == "id"]
    if unknown:
        raise InputError(f"unknown modality {unknown[0]!r}", f"use {' or '.join(COMPONENTS[1:])}")
    notes: list[str] = []
    with progress_bar() as progress:
        task = progress.add_task("interactions", total=3 + len(source.features))
        columns = _read_interactions(source)
        data = index_columns(columns, source.core)
        if len(data.items) == 0:
            what = f"no interactions of {source.interactions} are left by --core {source.core}"
            raise InputError(what, "lower --core")
        if len(data.items) < len(columns.users):
            notes.append(f"{source.core}-core: kept {len(data.items):,} of {len(columns.users):,} interactions")
        progress.update(task, advance=1, description="items")
        listed, titles = _read_items(source, data.item_ids, notes)
        progress.update(task, advance=1)
        features = {}
        for modality, path in source.features.items():
            progress.update(task, description=f"{modality} features")
            features[modality], unused = align(read_features(path, source.item_column, listed), data.item_ids)
            if unused:
                notes.append(f"{path}: {unused:,} items are not in the data set and were ignored")
            progress.update(task, advance=1)
        progress.update(task, description="writing")
        dataset = save_dataset(
            out,
            name=name,
            source="tabular",
            user_ids=data.user_ids,
            item_ids=data.item_ids,
            titles=titles,
            offsets=data.offsets,
            items=data.items,
            features=features,
        )
        progress.update(task, advance=1, description="written")
    return Prepared(dataset=dataset, notes=tuple(notes))


def _read_interactions(source: TabularSource) -> Columns:
    time = source.time_column
    names = [source.user_column, source.item_column, *([] if time is None else [time])]
    if len(set(names)) < len(names):
        raise InputError(f"columns {', '.join(names)} are not distinct", "name three different columns")
    return read_columns(source.interactions, source.user_column, source.item_column, time)


def _read_items(source: TabularSource, item_ids: np.ndarray, notes: list[str]) -> tuple[np.ndarray | None, np.ndarray]:
    """IDs of the items table in its order (None without one) and the titles of `item_ids`, empty where unknown."""
    if source.items is None:
        return None, np.full(len(item_ids), "", dtype=object)
    table = read_table(source.items, [source.item_column, source.title_column])
    missing = np.flatnonzero(table[source.item_column].isna())
    if len(missing):
        what = f"{source.items} has no {source.item_column} in data row {missing[0] + 1}"
        raise InputError(what, "fill it in or remove the row")
    listed = table[source.item_column].astype(str).to_numpy(dtype=object)
    repeated = pd.Series(listed).duplicated().to_numpy()
    if repeated.any():
        raise InputError(f"{source.items} lists item {listed[repeated][0]} more than once", "keep one row per item")
    titles = pd.Series(table[source.title_column].fillna("").astype(str).to_numpy(dtype=object), index=listed)
    unlisted = ~np.isin(item_ids.astype(str), listed.astype(str))
    if unlisted.any():
        notes.append(f"{source.items}: {int(unlisted.sum()):,} items of the interactions are not listed; no title")
    unused = len(listed) - int((~unlisted).sum())
    if unused:
        notes.append(f"{source.items}: {unused:,} listed items have no interaction and were left out")
    return listed, titles.reindex(item_ids, fill_value="").to_numpy(dtype=object)
