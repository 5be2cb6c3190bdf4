"""All studies of a store, or of a folder of exported reports, read once for whatever is made of them together."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.curves import COLUMNS, load_curves
from analysis.inference import FILE as MEASURED
from analysis.inference import load_measured
from analysis.ranks import Ranks, load_ranks
from analysis.rows import EXPORTS, exported_file, load_rows, open_store
from analysis.studies import read_study
from bbqrec.errors import InputError
from bbqrec.store import Store

log = logging.getLogger(__name__)

Source = Store | str | Path


@dataclass(frozen=True, kw_only=True)
class StudyPart:
    """One study: where it is, its rows, and what goes with them. `about` is its study file, {} for an export.

    `configs` are those of its runs by key, as far as a store holds them; exports have none.
    """

    name: str
    source: Source
    rows: pd.DataFrame
    ranks: Ranks
    curves: pd.DataFrame
    about: Mapping[str, Any]
    configs: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Whole:
    """Every study by name, Table 6's measurements if there are any, and what could not be read, a line each."""

    studies: Mapping[str, StudyPart]
    inference: Path | None = None
    troubles: tuple[str, ...] = ()
    source: Source | None = None
    """The store, or where the exports are."""


def load_whole(source: Source, needed: bool = True) -> Whole:
    """The latest study of each name in a store, or those whose exports lie in the folders of a folder (or in itself).

    What is damaged is left out and named in `troubles`: a study without its rows, its curves or ranks alone, Table 6.
    Raises InputError for a source that is not there and, if any study is `needed`, for one that has none.
    """
    parts: dict[str, StudyPart] = {}
    troubles: list[str] = []
    exports = _exports(source, troubles)
    where: Source = source if exports or troubles else open_store(source)
    found = exports or (_latest(where, troubles) if isinstance(where, Store) else {})
    for name, (place, about) in found.items():
        configs: dict[str, Mapping[str, Any]] = {}
        try:
            rows = load_rows(place, about or name, configs)
        except InputError as error:
            troubles.append(f"study {name} is left out: {error.what}")
            continue
        curves, ranks = pd.DataFrame(columns=list(COLUMNS)), {}
        if not (rows["stage"] == "quantizer").any():
            try:
                curves = load_curves(place, rows)
            except InputError as error:
                troubles.append(f"study {name} has no learning curves: {error.what}")
            try:
                ranks = _of_the_same_users(rows, load_ranks(place, rows))
            except InputError as error:
                troubles.append(f"study {name} is not tested, it has no ranks: {error.what}")
        parts[name] = StudyPart(
            name=name, source=place, rows=rows, ranks=ranks, curves=curves, about=about, configs=configs
        )
    inference = _measured(source, troubles)
    for trouble in troubles:
        log.warning("%s", trouble)
    if needed and not parts:
        shown = where.url if isinstance(where, Store) else where
        raise InputError(
            "; ".join([f"{shown} has no study that can be read", *troubles]), "give the --store of a study"
        )
    return Whole(studies=parts, inference=inference, troubles=tuple(troubles), source=where)


def _of_the_same_users(rows: pd.DataFrame, ranks: Ranks) -> Ranks:
    """The ranks. Raises InputError if runs on one data set rank different numbers of users."""
    for dataset, part in rows.groupby("dataset", sort=False):
        users = sorted({len(ranks[key]) for key in part["run_key"] if key in ranks})
        if len(users) > 1:
            counts = " and ".join(map(str, users))
            raise InputError(f"runs on {dataset} rank {counts} users", "run the study again")
    return ranks


def _exports(source: Source, troubles: list[str]) -> dict[str, tuple[Source, Mapping[str, Any]]]:
    """Study name -> its exported table, in the source itself and in its folders."""
    if isinstance(source, Store) or "://" in str(source):
        return {}
    folder = Path(source)
    places = [folder, *sorted(path for path in folder.iterdir() if path.is_dir())] if folder.is_dir() else [folder]
    found: dict[str, tuple[Source, Mapping[str, Any]]] = {}
    for place in places:
        file = exported_file(place)
        if file is not None and file.is_file():
            try:
                names = _studies_in(file)
            except InputError as error:
                troubles.append(error.what)
                continue
            for name in names:
                found.setdefault(name, (file.parent if file.name in EXPORTS else file, {}))
    return found


def _studies_in(file: Path) -> list[str]:
    try:
        frame = pd.read_parquet(file) if file.suffix == ".parquet" else pd.read_csv(file, dtype=str)
        return [str(name) for name in frame["study"].dropna().unique()]
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"cannot read {file} ({' '.join(str(error).split())})", "export the rows again") from error


def _latest(store: Store, troubles: list[str]) -> dict[str, tuple[Source, Mapping[str, Any]]]:
    """The study files under a plain name, which are the latest of that name."""
    found: dict[str, tuple[Source, Mapping[str, Any]]] = {}
    for file in store.json_names("study"):
        try:
            described = store.load_json(f"study/{file}.json")
            if not isinstance(described, dict) or described.get("name", file) == file:
                found[file] = (store, read_study(store, file))
        except InputError as error:
            troubles.append(f"study {file} is left out: {error.what}")
        except ValueError:  # not a name that a store could hold: no study wrote it
            continue
    return found


def _measured(source: Source, troubles: list[str]) -> Path | None:
    if isinstance(source, Store) or "://" in str(source):
        return None
    found = next(iter(sorted(Path(source).glob(f"*/{MEASURED}"))), None) if Path(source).is_dir() else None
    try:
        return found if found is None or load_measured(found) else None
    except InputError as error:
        troubles.append(f"Table 6 is left out: {error.what}")
        return None
