"""Feature files: one vector per item of one modality, keyed by item ID.

Formats: `.npz` with arrays `item_ids` and `features`; `.npy` with a row per row of the items table; `.parquet` with the
item column and either one list column or numeric columns. float16 and float64 become float32.
"""

import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Float

from bbqrec.errors import InputError
from bbqrec.schema import Features


@dataclass(frozen=True, kw_only=True)
class FeatureFile:
    """The rows of one feature file."""

    path: Path
    item_ids: np.ndarray
    values: Float[np.ndarray, "R F"]


def read_features(path: Path, item_column: str, listed: np.ndarray | None) -> FeatureFile:
    """Read a feature file; `listed` are the IDs of the items table, in its order.

    Raises InputError naming the file and the item for what is missing, malformed, duplicated, not finite or of another
    shape than (items, width).
    """
    if not path.is_file():
        raise InputError(f"feature file {path} does not exist", "check the path after --features <modality>=")
    readers = {".npz": _read_npz, ".npy": _read_npy, ".parquet": _read_parquet}
    if path.suffix not in readers:
        raise InputError(f"feature file {path} is none of {', '.join(readers)}", "convert it to .npz")
    try:
        item_ids, values = readers[path.suffix](path, item_column, listed)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(
            f"cannot read feature file {path} ({reason})", "write the file again, without pickling"
        ) from error
    if values.ndim != 2 or values.shape[1] == 0 or values.dtype.kind not in "fiu":
        found = f"{values.dtype} of shape {values.shape}"
        raise InputError(f"features in {path} are {found}", "give one numeric vector per item: (items, width)")
    if item_ids.ndim != 1:
        raise InputError(f"item IDs in {path} are of shape {item_ids.shape}", "give one ID per row: (items,)")
    if len(item_ids) != len(values):
        raise InputError(f"{path} has {len(item_ids)} item IDs but {len(values)} rows", "give one row per item ID")
    item_ids = np.array([i.decode() if isinstance(i, bytes) else str(i) for i in item_ids.tolist()], dtype=object)
    repeated = pd.Series(item_ids).duplicated().to_numpy()
    if repeated.any():
        raise InputError(f"{path} lists item {item_ids[repeated][0]} more than once", "keep one row per item")
    with np.errstate(over="ignore"):
        values = values.astype(np.float32)
    bad = ~np.isfinite(values).all(axis=1)
    if bad.any():
        what = f"{path} has NaN or infinite features for item {item_ids[bad][0]} ({int(bad.sum())} items in all)"
        raise InputError(what, "repair those rows, or leave them out: such items then count as without this modality")
    return FeatureFile(path=path, item_ids=item_ids, values=values)


def align(file: FeatureFile, item_ids: np.ndarray) -> tuple[Features, int]:
    """The features in the order of `item_ids`, zero and absent where the file has no row; the number of rows unused.

    Raises InputError when no row belongs to the data set.
    """
    place = pd.Index(item_ids).get_indexer(pd.Index(file.item_ids))
    known = place >= 0
    if not known.any():
        example = (
            f"its first is {file.item_ids[0]!r}, the data set's {item_ids[0]!r}" if len(known) else "it has no rows"
        )
        raise InputError(f"no item of {file.path} is in the data set ({example})", "use the same item IDs in both")
    values = np.zeros((len(item_ids), file.values.shape[1]), dtype=np.float32)
    values[place[known]] = file.values[known]
    present = np.zeros(len(item_ids), dtype=bool)
    present[place[known]] = True
    return Features(values=values, present=present), int((~known).sum())


def _read_npz(path: Path, item_column: str, listed: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    with np.load(path, allow_pickle=False) as arrays:
        absent = [name for name in ("item_ids", "features") if name not in arrays]
        if absent:
            raise InputError(
                f"{path} has no array {absent[0]!r}", "save it with np.savez(path, item_ids=..., features=...)"
            )
        return arrays["item_ids"], arrays["features"]


def _read_npy(path: Path, item_column: str, listed: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    values = np.load(path, allow_pickle=False)
    if listed is None:
        raise InputError(
            f"{path} has no item IDs", "give the items table whose order it follows with --items, or use .npz"
        )
    if values.ndim == 2 and len(values) != len(listed):
        raise InputError(
            f"{path} has {len(values)} rows, the items table {len(listed)}", "give one row per listed item"
        )
    return listed, values


def _read_parquet(path: Path, item_column: str, listed: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    table = pd.read_parquet(path)
    if item_column not in table:
        raise InputError(f"{path} has no column {item_column!r}", f"its columns are {', '.join(map(str, table))}")
    columns = table.drop(columns=item_column)
    if columns.shape[1] == 1 and pd.api.types.is_object_dtype(columns.dtypes.iloc[0]):
        rows = columns.iloc[:, 0]
        width = len(rows.iloc[0]) if len(rows) else 0
        for item, row in zip(table[item_column], rows, strict=True):
            if row is None or len(row) != width:
                found = "no vector" if row is None else f"{len(row)} values"
                raise InputError(f"{path} has {found} for item {item}", f"give {width}, as for its first item")
        return table[item_column].to_numpy(dtype=object), np.stack(rows.tolist()) if len(rows) else np.zeros((0, 1))
    wrong = [str(c) for c in columns if not pd.api.types.is_numeric_dtype(columns[c])]
    if wrong:
        raise InputError(f"column {wrong[0]!r} of {path} is not numeric", "keep the item column and the features only")
    return table[item_column].to_numpy(dtype=object), columns.to_numpy(dtype=np.float32)
