"""The rows of a study, one per cell (method x data set x seed), from a store or from an exported table.

Columns, always there:

    study, profile, overrides       what was asked for (`overrides` as "field=value field=value")
    method, label, dataset, seed    which cell
    status, error, note             done, running, pending or failed, and why
    run_key, quantizer_key          which runs the cell shows (models over items have no quantizer)
    components, fingerprint         the behaviour signals the run had ("id+text+image") and the data it saw
    valid/recall@5 ... test/ndcg@10 scores in [0, 1], NaN where not done

and as far as the runs recorded them, `costs/...`, `collisions/...`, `id_collisions/...`, `codebook/...` (numbers) and
`provenance/...` (text). The machine's name stays behind: exported rows are for publishing.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.studies import AGAIN, NAMED, read_study
from bbqrec.errors import InputError
from bbqrec.store import Store

METRICS = ("recall@5", "recall@10", "ndcg@5", "ndcg@10")
SPLITS = ("valid", "test")
STATUSES = ("done", "running", "pending", "failed")
SCORES = tuple(f"{split}/{metric}" for split in SPLITS for metric in METRICS)

IDENTITY = ("study", "profile", "overrides", "method", "label", "dataset", "seed")
STATE = ("status", "error", "note", "run_key", "quantizer_key", "components", "fingerprint")
SAME = ("run_key", "fingerprint", "seed")
"""What a run and a cell that shows it must agree on. Not on the data set's name: a copy may have another."""
NUMBERS = ("costs", "collisions", "id_collisions", "codebook")
"""Groups of row.json whose numbers become columns."""
PROVENANCE = ("version", "commit", "dirty", "device", "torch", "ray", "python", "started", "finished", "attempts")

EXPORTS = ("rows.parquet", "rows.csv")
"""What an exported folder holds, in the order in which they are looked for."""


def load_rows(source: Store | str | Path, study: str | Mapping[str, Any] = "ablations") -> pd.DataFrame:
    """The rows of `study` from a store (or its URL), a folder with rows.parquet or rows.csv, or such a file itself.

    `study` is a name or, for a store, what a study file holds. A cell counts as done if the store holds its run,
    whatever the study file says: the file may be older. A damaged run is pending, with the damage as its error. Raises
    InputError for a missing source, an unknown study, rows that cannot be right.
    """
    exported = exported_file(source)
    if exported is not None:
        return _from_file(exported, study if isinstance(study, str) else study["name"])
    store = open_store(source)
    return _from_store(store, read_study(store, study) if isinstance(study, str) else study)


def export_rows(frame: pd.DataFrame, path: str | Path) -> Path:
    """Writes rows to a .parquet or .csv file; `load_rows` reads them back. Raises InputError for another suffix."""
    path = Path(path)
    if path.suffix == ".parquet":
        frame.to_parquet(path, index=False)
    elif path.suffix == ".csv":
        frame.to_csv(path, index=False, lineterminator="\n")
    else:
        raise InputError(f"rows cannot be exported to {path}", "name a file that ends in .csv or .parquet")
    return path


def exported_file(source: Store | str | Path) -> Path | None:
    """The exported table that a source names or, as a folder, holds; None if it is a store."""
    if isinstance(source, Store):
        return None
    path = Path(source)
    if path.suffix in (".parquet", ".csv") and not path.is_dir():
        return path
    return next((path / name for name in EXPORTS if (path / name).is_file()), None)


def open_store(url: Store | str | Path) -> Store:
    """The store at a URL. Reading creates nothing: a folder that is not there raises InputError."""
    if isinstance(url, Store):
        return url
    if "://" not in str(url) and not Path(url).is_dir():
        raise InputError(f"store {url} does not exist", "give the --store that the study was run with")
    return Store(url, writable=False)


def _from_store(store: Store, described: Mapping[str, Any]) -> pd.DataFrame:
    overrides = described.get("overrides") or {}
    about = {
        "study": described["name"],
        "profile": described.get("profile"),
        "overrides": " ".join(f"{field}={value}" for field, value in overrides.items()),
    }
    rows = []
    published: dict[str, dict[str, Any]] = {}
    for cell in described["cells"]:
        key = cell["run_key"]
        if key not in published:
            published[key] = _published(store, key)
        result = _result(published[key], cell)  # of every cell: a run that suits one may not suit another
        row = about | {field: cell.get(field) for field in (*NAMED, "fingerprint", "error", "note")} | result
        if row["status"] == "done" and result.get("status") != "done":
            row["status"] = "pending"
        rows.append(row)
    return checked(pd.DataFrame(rows), f"study {described['name']} in {store.url}")


def _published(store: Store, key: str) -> dict[str, Any]:
    """The `row` of a run or its `damage`; {} if the store does not hold it."""
    try:
        held = store.has("recommender", key)
    except ValueError as error:  # not a name that a store could hold
        raise InputError(f"the study has a cell with run_key {key!r}", AGAIN) from error
    if not held:
        return {}
    try:
        return {"row": store.read_json("recommender", key, "row.json")}
    except InputError as damage:
        return {"damage": damage.what}
    except ValueError as error:
        raise InputError(f"row.json of run {key} is not JSON", "remove the run from the store and rerun") from error


def _result(published: Mapping[str, Any], cell: Mapping[str, Any]) -> dict[str, Any]:
    """What the store says of a cell's run; {} if it does not hold it."""
    if "row" not in published:
        return {"error": published["damage"], "status": "pending"} if published else {}
    row = published["row"]
    wrong = _wrong(row, cell)
    if wrong:
        raise InputError(f"row.json of run {cell['run_key']} {wrong}", "remove the run from the store and rerun")
    flat = {f"{split}/{metric}": row["scores"][split][metric] for split in SPLITS for metric in METRICS}
    for group in NUMBERS:
        values = row.get(group) or {}
        flat |= {f"{group}/{name}": float(v) for name, v in values.items() if isinstance(v, int | float)}
    origin = row.get("provenance") or {}
    flat |= {f"provenance/{name}": None if origin.get(name) is None else str(origin[name]) for name in PROVENANCE}
    first = (row.get("quantizer_provenance") or {}).get("commit")  # a shared stage 1 may be older
    flat["provenance/quantizer_commit"] = None if first is None else str(first)
    components = _signals(row.get("config") or {})
    about = {"status": "done", "error": None, "components": "+".join(components), "fingerprint": row.get("fingerprint")}
    return about | flat


def _signals(config: Mapping[str, Any]) -> list[str]:
    """The behaviour signals that a run reads. Models over items read IDs, and the modalities they name."""
    quantizer = config.get("quantizer")
    if quantizer is not None:
        return quantizer.get("components", ["text"])  # one that has no choice of them (LETTER's) reads text
    return ["id", *config.get("recommender", {}).get("features", [])] if config else []


def _wrong(row: Any, cell: Mapping[str, Any]) -> str | None:
    """Why row.json cannot be this cell's."""
    if not isinstance(row, dict):
        return "is no object"
    for field in SAME:
        # Older study files name no fingerprint.
        if cell.get(field) is not None and row.get(field) != cell[field]:
            return f"has {field} {row.get(field)!r}, the study {cell[field]!r}"
    scores = row.get("scores")
    for split in SPLITS:
        for metric in METRICS:
            if not isinstance(scores, dict) or metric not in (scores.get(split) or {}):
                return f"has no score {split}/{metric}"
    return None


def _from_file(path: Path, study: str) -> pd.DataFrame:
    try:
        if path.suffix == ".parquet":
            frame = pd.read_parquet(path)
        else:
            # As text first: a key of digits is no number, and a data set may be called NA.
            frame = pd.read_csv(path, dtype=str, keep_default_na=False, na_values=[""])
    except FileNotFoundError as error:
        raise InputError(f"{path} does not exist", "give a file or folder of exported rows, or a store") from error
    except (OSError, ValueError) as error:  # pandas and pyarrow: parsers, encodings, cut files
        said = " ".join(str(error).split())
        raise InputError(f"cannot read {path} ({said})", "export the rows again") from error
    frame = checked(frame, str(path))
    known = frame["study"].dropna().unique()
    if len(frame) and study not in known:
        raise InputError(f"{path} has no study {study!r}", f"give --study {' or '.join(known)}")
    return frame[frame["study"] == study].reset_index(drop=True)


def checked(frame: pd.DataFrame, where: str) -> pd.DataFrame:
    """The rows with every fixed column and its type. Raises InputError that names the row which cannot be right."""
    again = "run the study again, or export its rows again"
    optional = ("error", "note", "components", "fingerprint", "profile", "overrides", *SCORES)
    absent = [c for c in (*IDENTITY, *STATE) if c not in frame.columns and c not in optional]
    if absent and len(frame):
        raise InputError(f"{where} has no column {', '.join(absent)}", again)
    frame = frame.reindex(columns=[*dict.fromkeys([*IDENTITY, *STATE, *SCORES, *frame.columns])])
    for column in frame.columns:
        group = column.partition("/")[0]
        if column == "seed" or group in (*SPLITS, *NUMBERS):
            numbers = pd.to_numeric(frame[column], errors="coerce")
            _refuse(frame, numbers.isna() & frame[column].notna(), column, where)
            frame[column] = numbers.astype(float)
        else:
            frame[column] = frame[column].astype(object).where(frame[column].notna() & (frame[column] != ""), None)
    for column in ("method", "label", "dataset", "run_key"):
        _refuse(frame, frame[column].isna(), column, where)
    _refuse(frame, frame["seed"].isna() | (frame["seed"] % 1 != 0), "seed", where)
    _refuse(frame, ~frame["status"].isin(STATUSES), "status", where)
    done = frame["status"] == "done"
    for column in SCORES:
        _refuse(frame, done & ~frame[column].between(0.0, 1.0), column, where)
        frame.loc[~done, column] = float("nan")
    frame["seed"] = frame["seed"].astype("int64")
    twice = frame.duplicated(["study", "dataset", "method", "seed"])
    if twice.any():
        raise InputError(f"{where} has {_name(frame[twice].iloc[0])} twice", again)
    return frame


def _refuse(frame: pd.DataFrame, bad: pd.Series, column: str, where: str) -> None:
    if bad.any():
        row = frame[bad].iloc[0]
        value = row[column]
        found = "no value" if pd.isna(value) else repr(value) if isinstance(value, str) else str(value)
        raise InputError(
            f"{where}: {column} of {_name(row)} is {found}", "run the study again, or export its rows again"
        )


def _name(row: pd.Series) -> str:
    seed = row["seed"]
    shown = f"{seed:g}" if isinstance(seed, float) else seed
    return f"{row['dataset']} {row['method']} seed {shown}"
