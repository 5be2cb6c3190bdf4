"""Any interactions table, with an optional items table and feature files, -> a canonical data set.

Users and items are numbered in the order of their IDs (as strings). The catalogue consists of the items that somebody
interacted with: an item that is only listed can never be a target, and Table 1 would not count it either.
"""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv as csv
import pyarrow.parquet as pq

from bbqrec.datasets.canonical import Prepared, save_dataset
from bbqrec.datasets.core import index_interactions
from bbqrec.datasets.features import align, read_features
from bbqrec.datasets.progress import progress_bar
from bbqrec.errors import InputError
from bbqrec.schema import COMPONENTS

SEPARATORS = {".csv": ",", ".tsv": "\t"}


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
        users, items, times = _read_interactions(source)
        data = index_interactions(users, items, times, source.core)
        if len(data.items) == 0:
            what = f"no interactions of {source.interactions} are left by --core {source.core}"
            raise InputError(what, "lower --core")
        if len(data.items) < len(users):
            notes.append(f"{source.core}-core: kept {len(data.items):,} of {len(users):,} interactions")
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


def read_table(path: Path, columns: list[str]) -> pd.DataFrame:
    """The named columns of a parquet, csv or tsv file; in text files every value stays a string, "" becomes missing.

    Raises InputError for a file that is missing, malformed or lacks a column.
    """
    if not path.is_file():
        raise InputError(f"{path} does not exist", "check the path")
    suffix = path.with_suffix("").suffix if path.suffix == ".gz" else path.suffix
    if suffix != ".parquet" and suffix not in SEPARATORS:
        raise InputError(f"{path} is neither parquet, csv nor tsv", "convert it, or give it the right ending")
    try:
        if suffix == ".parquet":
            _require(path, pq.read_schema(path).names, columns)
            return pq.read_table(path, columns=columns).to_pandas()
        # Strict where pandas is not: a row with a field too many is an error, not cut or shifted.
        parse = csv.ParseOptions(delimiter=SEPARATORS[suffix], newlines_in_values=True)
        with csv.open_csv(path, parse_options=parse) as reader:
            _require(path, reader.schema.names, columns)
        convert = csv.ConvertOptions(
            include_columns=columns,
            column_types=dict.fromkeys(columns, pa.string()),
            null_values=[""],
            strings_can_be_null=True,
        )
        return csv.read_csv(path, parse_options=parse, convert_options=convert).to_pandas()
    except (OSError, EOFError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"cannot read {path} ({reason})", "write the file again") from error


def _require(path: Path, found: list[str], columns: list[str]) -> None:
    absent = [c for c in columns if c not in found]
    if absent:
        raise InputError(f"{path} has no column {absent[0]!r}", f"name one of its columns: {', '.join(found)}")


def _read_interactions(source: TabularSource) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """User IDs, item IDs and times, a row per interaction."""
    path, time = source.interactions, source.time_column
    columns = [source.user_column, source.item_column, *([] if time is None else [time])]
    if len(set(columns)) < len(columns):
        raise InputError(f"columns {', '.join(columns)} are not distinct", "name three different columns")
    table = read_table(path, columns)
    if table.empty:
        raise InputError(f"{path} has no rows", "give a table with a row per interaction")
    for column in columns:
        missing = np.flatnonzero(table[column].isna())
        if len(missing):
            raise InputError(f"{path} has no {column} in data row {missing[0] + 1}", "fill it in or remove the row")
    times = None if time is None else _sortable(table[time], path)
    return _strings(table[source.user_column]), _strings(table[source.item_column]), times


def _sortable(column: pd.Series, path: Path) -> np.ndarray:
    """Times as numbers: numeric, datetime, or text that reads as one of them."""
    if not pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_datetime64_any_dtype(column):
        try:
            column = pd.to_numeric(column)
        except (ValueError, TypeError):
            try:
                column = pd.to_datetime(column, utc=True, format="ISO8601")
            except (ValueError, TypeError) as error:
                what = (
                    f"column {column.name!r} of {path} holds values that are not times ({str(error).splitlines()[0]})"
                )
                raise InputError(
                    what, "use numbers or ISO dates, or --time-column None for the order of the rows"
                ) from error
    if pd.api.types.is_datetime64_any_dtype(column):
        column = column.astype("int64")
    return column.to_numpy()


def _read_items(source: TabularSource, item_ids: np.ndarray, notes: list[str]) -> tuple[np.ndarray | None, np.ndarray]:
    """IDs of the items table in its order (None without one) and the titles of `item_ids`, empty where unknown."""
    if source.items is None:
        return None, np.full(len(item_ids), "", dtype=object)
    table = read_table(source.items, [source.item_column, source.title_column])
    missing = np.flatnonzero(table[source.item_column].isna())
    if len(missing):
        what = f"{source.items} has no {source.item_column} in data row {missing[0] + 1}"
        raise InputError(what, "fill it in or remove the row")
    listed = _strings(table[source.item_column])
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


def _strings(column: pd.Series) -> np.ndarray:
    return column.astype(str).to_numpy(dtype=object)
