"""An interactions table -> numbers, batch by batch: 16 bytes a row are held, however long the IDs are."""

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Int

from bbqrec.datasets.core import Columns
from bbqrec.datasets.tables import read_batches
from bbqrec.errors import InputError


class Numbering:
    """IDs get numbers in the order in which they first come."""

    def __init__(self) -> None:
        self.numbers: dict[str, int] = {}

    def of(self, column: pa.Array) -> Int[np.ndarray, "n"]:
        """The numbers of a column without missing values; IDs that are no strings are named as Python writes them."""
        plain = column.dictionary_decode() if pa.types.is_dictionary(column.type) else column
        encoded = plain.dictionary_encode()
        names = encoded.dictionary.to_pandas().astype(str)
        numbers = [self.numbers.setdefault(name, len(self.numbers)) for name in names]
        return np.array(numbers, dtype=np.int32)[encoded.indices.to_numpy()]

    def ids(self) -> np.ndarray:
        return np.array(list(self.numbers), dtype=object)


def read_columns(path: Path, user_column: str, item_column: str, time_column: str | None) -> Columns:
    """The whole table. Raises InputError for one that cannot be read, has no rows or misses a value."""
    names = [user_column, item_column, *([] if time_column is None else [time_column])]
    users, items = Numbering(), Numbering()
    user, item, times = [], [], []
    rows = 0
    for batch in read_batches(path, names):
        for name in names:
            missing = pc.is_null(batch.column(name), nan_is_null=True).to_numpy(zero_copy_only=False)
            if missing.any():
                what = f"{path} has no {name} in data row {rows + int(missing.argmax()) + 1}"
                raise InputError(what, "fill it in or remove the row")
        rows += len(batch)
        user.append(users.of(batch.column(user_column)))
        item.append(items.of(batch.column(item_column)))
        if time_column is not None:
            times.append(_sortable(batch.column(time_column).to_pandas().rename(time_column), path))
    if rows == 0:
        raise InputError(f"{path} has no rows", "give a table with a row per interaction")
    if len({values.dtype.kind == "M" for values in times}) > 1:
        raise _not_times(time_column, path, "numbers in some rows, dates in others")
    return Columns(
        users=np.concatenate(user),
        user_ids=users.ids(),
        items=np.concatenate(item),
        item_ids=items.ids(),
        times=np.concatenate(times) if times else None,
    )


def _sortable(column: pd.Series, path: Path) -> np.ndarray:
    """Times as numbers or, if they are dates or text that reads as dates, as datetime64[ns]."""
    if not pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_datetime64_any_dtype(column):
        try:
            column = pd.to_numeric(column)
        except (ValueError, TypeError):
            try:
                column = pd.to_datetime(column, utc=True, format="ISO8601")
            except (ValueError, TypeError) as error:
                raise _not_times(column.name, path, str(error).splitlines()[0]) from error
    if pd.api.types.is_datetime64_any_dtype(column):
        return column.dt.as_unit("ns").to_numpy(dtype="datetime64[ns]")
    return column.to_numpy()


def _not_times(column: object, path: Path, reason: str) -> InputError:
    return InputError(
        f"column {column!r} of {path} holds values that are not times ({reason})",
        "use numbers or ISO dates, or --time-column None for the order of the rows",
    )
