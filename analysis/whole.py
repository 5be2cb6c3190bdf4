"""All studies of a store, or of a folder of exported reports, read once for whatever is made of them together."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.curves import load_curves
from analysis.inference import FILE as MEASURED
from analysis.ranks import Ranks, load_ranks
from analysis.rows import EXPORTS, exported_file, load_rows, open_store
from analysis.studies import read_study
from bbqrec.errors import InputError
from bbqrec.store import Store

log = logging.getLogger(__name__)

Source = Store | str | Path


@dataclass(frozen=True, kw_only=True)
class StudyPart:
    """One study: where it is, its rows, and what goes with them. `about` is its study file, {} for an export."""

    name: str
    source: Source
    rows: pd.DataFrame
    ranks: Ranks
    curves: pd.DataFrame
    about: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Whole:
    """Every study by name, Table 6's measurements if there are any, and what could not be read, a line each."""

    studies: Mapping[str, StudyPart]
    inference: Path | None = None
    troubles: tuple[str, ...] = ()


def load_whole(source: Source) -> Whole:
    """The latest study of each name in a store, or those whose exports lie in the folders of a folder (or in itself).

    What is damaged is left out and named in `troubles`. Raises InputError for a source that is not there or has none.
    """
    exports = _exports(source)
    parts: dict[str, StudyPart] = {}
    troubles: list[str] = []
    found = exports or _latest(open_store(source), troubles)
    for name, (where, about) in found.items():
        try:
            rows = load_rows(where, about or name)
            quantizers = bool((rows["stage"] == "quantizer").any())
            curves = pd.DataFrame() if quantizers else load_curves(where, rows)
            ranks = {} if quantizers else load_ranks(where, rows)
        except InputError as error:
            troubles.append(f"study {name} is left out: {error.what}")
            log.warning("%s", troubles[-1])
            continue
        parts[name] = StudyPart(name=name, source=where, rows=rows, ranks=ranks, curves=curves, about=about)
    if not parts:
        raise InputError(f"{source if exports else open_store(source).url} has no study that can be read", "run one")
    return Whole(studies=parts, inference=_measured(source), troubles=tuple(troubles))


def _exports(source: Source) -> dict[str, tuple[Source, Mapping[str, Any]]]:
    """Study name -> its exported table, in the source itself and in its folders."""
    if isinstance(source, Store) or "://" in str(source):
        return {}
    folder = Path(source)
    places = [folder, *sorted(path for path in folder.iterdir() if path.is_dir())] if folder.is_dir() else [folder]
    found: dict[str, tuple[Source, Mapping[str, Any]]] = {}
    for place in places:
        file = exported_file(place)
        if file is not None and file.is_file():
            for name in _studies_in(file):
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
            if isinstance(described, dict) and described.get("name") == file:
                found[file] = (store, read_study(store, file))
        except InputError as error:
            troubles.append(f"study {file} is left out: {error.what}")
    return found


def _measured(source: Source) -> Path | None:
    if isinstance(source, Store) or "://" in str(source):
        return None
    return next(iter(sorted(Path(source).glob(f"*/{MEASURED}"))), None) if Path(source).is_dir() else None
