"""The canonical data set folder: written at once or not at all, read back and checked.

A folder holds `dataset.json`, `interactions.parquet` (user, item: int32 indices, a user's items oldest first),
`users.parquet`, `items.parquet` (row = index) and per modality `features_<m>.npy` (I, F) and `present_<m>.npy` (I,).
"""

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Int

from bbqrec.errors import InputError
from bbqrec.schema import Dataset, Features

FORMAT = 1
MIN_ITEMS = 3
"""One item to train on, one to validate, one to test."""


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A data set that was just written, and what its reader has to say about the source."""

    dataset: Dataset
    notes: tuple[str, ...] = ()


def save_dataset(
    folder: str | Path,
    *,
    name: str,
    source: str,
    user_ids: np.ndarray,
    item_ids: np.ndarray,
    titles: np.ndarray,
    offsets: Int[np.ndarray, "U1"],
    items: Int[np.ndarray, "n"],
    features: dict[str, Features],
    tables: Mapping[str, pd.DataFrame] | None = None,
    generator: Mapping[str, Any] | None = None,
) -> Dataset:
    """Write a canonical folder at once or not at all, replacing an earlier data set of that folder.

    `tables` are kept beside the data set, as parquet under their names, and `generator`, what made it, in its header;
    they are no part of it and not in its fingerprint.
    Raises InputError for a user with fewer than three items, for non-finite features and for a folder that cannot be
    written or holds something else.
    """
    folder = Path(folder)
    offsets = np.asarray(offsets, dtype=np.int64)
    items = np.asarray(items, dtype=np.int32)
    item_ids = np.asarray(item_ids, dtype=object)
    features = {m: _cleaned(m, f, item_ids) for m, f in sorted(features.items())}
    dataset = Dataset(
        name=name,
        fingerprint=_fingerprint(user_ids, item_ids, titles, offsets, items, features),
        user_ids=np.asarray(user_ids, dtype=object),
        item_ids=item_ids,
        titles=np.asarray(titles, dtype=object),
        offsets=offsets,
        items=items,
        features=features,
    )
    _check(dataset)
    header = {
        "format": FORMAT,
        "name": name,
        "source": source,
        "users": dataset.num_users,
        "items": dataset.num_items,
        "interactions": len(items),
        "modalities": {m: {"width": f.values.shape[1], "present": int(f.present.sum())} for m, f in features.items()},
        "fingerprint": dataset.fingerprint,
    } | ({} if generator is None else {"generator": dict(generator)})
    require_free(folder)
    attempt = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}")
    try:
        attempt.mkdir(parents=True)
        _write(attempt, dataset, header)
        for table_name, table in (tables or {}).items():
            table.to_parquet(attempt / f"{table_name}.parquet", index=False)
        if folder.exists():
            folder.rename(attempt / "replaced")
        attempt.rename(folder)
        shutil.rmtree(folder / "replaced", ignore_errors=True)
    except OSError as error:
        raise InputError(f"cannot write {folder} ({error.strerror or error})", "choose a writable --out") from error
    finally:
        shutil.rmtree(attempt, ignore_errors=True)
    return dataset


def require_free(folder: Path) -> None:
    """Raises InputError unless a data set can be written to `folder`: sources call it before they start to work."""
    parent = next(p for p in folder.absolute().parents if p.exists())
    if not parent.is_dir() or not os.access(parent, os.W_OK):
        raise InputError(f"cannot write {folder} ({parent} is not a writable folder)", "choose a writable --out")
    empty = folder.is_dir() and not any(folder.iterdir())
    if folder.exists() and not empty and not (folder / "dataset.json").exists():
        raise InputError(f"{folder} exists and is not a data set folder", "choose another --out")


def load_dataset(folder: str | Path, verify: bool = True) -> Dataset:
    """Read a canonical folder; `verify` compares the contents with the fingerprint they were written under.

    Raises InputError for a folder that is missing, incomplete, damaged or written by another format.
    """
    folder = Path(folder)
    if not (folder / "dataset.json").is_file():
        raise InputError(f"{folder} is not a data set folder (no dataset.json)", "create one with `bbqrec prepare`")
    damaged = InputError(f"data set {folder} is damaged", "write it again with `bbqrec prepare`")
    try:
        header = json.loads((folder / "dataset.json").read_text(encoding="utf-8"))
        if header["format"] != FORMAT:
            raise InputError(f"data set {folder} has format {header['format']}, not {FORMAT}", "prepare it again")
        interactions = pd.read_parquet(folder / "interactions.parquet")
        items_table = pd.read_parquet(folder / "items.parquet")
        user_ids = pd.read_parquet(folder / "users.parquet")["user_id"].to_numpy(dtype=object)
        counts = np.bincount(interactions["user"].to_numpy(), minlength=len(user_ids))
        features = {
            m: Features(
                values=np.load(folder / f"features_{m}.npy", allow_pickle=False),
                present=np.load(folder / f"present_{m}.npy", allow_pickle=False),
            )
            for m in sorted(header["modalities"])
        }
        dataset = Dataset(
            name=header["name"],
            fingerprint=header["fingerprint"],
            user_ids=user_ids,
            item_ids=items_table["item_id"].to_numpy(dtype=object),
            titles=items_table["title"].to_numpy(dtype=object),
            offsets=np.concatenate([[0], np.cumsum(counts)]),
            items=interactions["item"].to_numpy(dtype=np.int32),
            features=features,
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise damaged from error
    if verify:
        found = _fingerprint(user_ids, dataset.item_ids, dataset.titles, dataset.offsets, dataset.items, features)
        if found != dataset.fingerprint:
            raise damaged
    return dataset


def statistics(dataset: Dataset) -> dict[str, int | float]:
    """The columns of Table 1."""
    present = {m: int(f.present.sum()) for m, f in dataset.features.items()}
    return {
        "users": dataset.num_users,
        "items": dataset.num_items,
        "interactions": len(dataset.items),
        "texts": present.get("text", 0),
        "images": present.get("image", 0),
        "average length": len(dataset.items) / dataset.num_users,
    }


def _cleaned(modality: str, features: Features, item_ids: np.ndarray) -> Features:
    values = np.where(features.present[:, None], features.values, 0).astype(np.float32)
    bad = np.flatnonzero(~np.isfinite(values).all(axis=1))
    if len(bad):
        raise InputError(
            f"the {modality} features of item {item_ids[bad[0]]} are not finite", "repair or drop that row"
        )
    return Features(values=values, present=np.asarray(features.present, dtype=bool))


def _check(dataset: Dataset) -> None:
    if dataset.num_users == 0:
        raise InputError(f"data set {dataset.name} has no interactions", "check the input or lower --core")
    short = np.flatnonzero(np.diff(dataset.offsets) < MIN_ITEMS)
    if len(short):
        user, others = dataset.user_ids[short[0]], len(short) - 1
        what = f"user {user} has fewer than {MIN_ITEMS} items (and so have {others} other users)"
        raise InputError(what, f"remove such users, for instance with --core {MIN_ITEMS}")


def _write(folder: Path, dataset: Dataset, header: dict[str, object]) -> None:
    user = np.repeat(np.arange(dataset.num_users, dtype=np.int32), np.diff(dataset.offsets))
    pd.DataFrame({"user": user, "item": dataset.items}).to_parquet(folder / "interactions.parquet", index=False)
    pd.DataFrame({"user_id": dataset.user_ids}).to_parquet(folder / "users.parquet", index=False)
    items = pd.DataFrame({"item_id": dataset.item_ids, "title": dataset.titles})
    items.to_parquet(folder / "items.parquet", index=False)
    for modality, features in dataset.features.items():
        np.save(folder / f"features_{modality}.npy", features.values)
        np.save(folder / f"present_{modality}.npy", features.present)
    (folder / "dataset.json").write_text(json.dumps(header, indent=2) + "\n", encoding="utf-8")


def _fingerprint(
    user_ids: np.ndarray,
    item_ids: np.ndarray,
    titles: np.ndarray,
    offsets: np.ndarray,
    items: np.ndarray,
    features: dict[str, Features],
) -> str:
    """SHA-256 of the contents. Not of the files: parquet bytes change with the version of their writer."""
    sha = hashlib.sha256()
    for strings in (user_ids, item_ids, titles):
        sha.update(json.dumps(list(map(str, strings)), ensure_ascii=False).encode())
    arrays = [offsets.astype("<i8"), items.astype("<i4")]
    for modality, f in sorted(features.items()):
        sha.update(modality.encode())
        arrays += [f.values.astype("<f4", copy=False), f.present.astype(np.uint8)]
    for array in arrays:
        sha.update(str(array.shape).encode())
        sha.update(np.ascontiguousarray(array).data)
    return sha.hexdigest()
