"""The rows of a study, one per cell (method x data set x seed x setting), from a store or from an exported table.

Columns, always there:

    study, profile, overrides       what was asked for (`overrides` as "field=value field=value")
    stage                           recommender or, in a study of quantizers, quantizer: whose run a cell shows
    method, label, dataset, seed    which cell, and
    setting                         the overrides that set it apart where the study varies more than these
    status, error, note             done, running, pending or failed, and why
    run_key, quantizer_key          which runs the cell shows (models over items have no quantizer), and
    teacher_key                     the run that taught its quantizer, where one did
    components, fingerprint         the behaviour signals the run had ("id+text+image") and the data it saw
    valid/recall@5 ... test/ndcg@10 scores in [0, 1], NaN where not done, and for quantizers

and as far as they were recorded, `data/...` (Table 1), `costs/...`, `collisions/...`, `id_collisions/...`,
`codebook/...` (numbers) and `provenance/...` (text). The machine's name stays behind: exported rows are for publishing.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.published import EXCESS, METRICS, NUMBERS, SPLITS, columns, config_of, published, seconds
from analysis.studies import NAMED, read_study
from bbqrec.errors import InputError
from bbqrec.store import Store

STAGES = ("quantizer", "recommender")
NOTED = ("setting", "fingerprint", "teacher_key", "error", "note")
"""What a study file may say of a cell beside NAMED."""
STATUSES = ("done", "running", "pending", "failed")
SCORES = tuple(f"{split}/{metric}" for split in SPLITS for metric in METRICS)
COLLISIONS = f"collisions/{EXCESS}"
"""What a quantizer is judged by."""

IDENTITY = ("study", "stage", "profile", "overrides", "method", "label", "dataset", "seed", "setting")
STATE = ("status", "error", "note", "run_key", "quantizer_key", "teacher_key", "components", "fingerprint")
OPTIONAL = ("stage", "setting", "error", "note", "teacher_key", "components", "fingerprint", "profile", "overrides")
"""Of these what an export may lack; older ones do."""

EXPORTS = ("rows.parquet", "rows.csv")
"""What an exported folder holds, in the order in which they are looked for."""


def load_rows(
    source: Store | str | Path,
    study: str | Mapping[str, Any] = "ablations",
    configs: dict[str, Mapping[str, Any]] | None = None,
) -> pd.DataFrame:
    """The rows of `study` from a store (or its URL), a folder with rows.parquet or rows.csv, or such a file itself.

    `study` is a name or, for a store, what a study file holds. A cell counts as done if the store holds its run,
    whatever the study file says: the file may be older. A damaged run is pending, with the damage as its error.
    `configs`, if given, gets the config of every run that a store holds; exports have none. Raises InputError for a
    missing source, an unknown study, rows that cannot be right.
    """
    exported = exported_file(source)
    if exported is not None:
        return _from_file(exported, study if isinstance(study, str) else study["name"])
    store = open_store(source)
    described = read_study(store, study) if isinstance(study, str) else study
    return _from_store(store, described, {} if configs is None else configs)


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


def _from_store(store: Store, described: Mapping[str, Any], configs: dict[str, Mapping[str, Any]]) -> pd.DataFrame:
    overrides = described.get("overrides") or {}
    stage = described.get("stage") or STAGES[-1]
    if stage not in STAGES:
        raise InputError(f"study {described['name']} is of stage {stage!r}", "run the study again")
    about = {
        "study": described["name"],
        "stage": stage,
        "profile": described.get("profile"),
        "overrides": " ".join(f"{field}={value}" for field, value in overrides.items()),
    }
    rows = []
    held: dict[str, dict[str, Any]] = {}
    for cell in described["cells"]:
        key = cell["run_key"]
        if key not in held:
            held[key] = published(store, stage, key)
            configs |= {key: found} if (found := config_of(held[key])) else {}
        result = columns(held[key], stage, cell)  # of every cell: a run that suits one may not suit another
        teacher = result.get("teacher_key")
        if teacher and "costs/teacher_seconds" not in result:  # a run of an older version
            if teacher not in held:
                held[teacher] = published(store, "recommender", teacher)
            result |= {"costs/teacher_seconds": seconds(held[teacher])}
        counts = (described.get("datasets") or {}).get(cell["dataset"]) or {}
        sizes = {f"data/{name}": value for name, value in counts.items()}
        row = about | sizes | {field: cell.get(field) for field in (*NAMED, *NOTED)} | result
        if row["status"] == "done" and result.get("status") != "done":
            row["status"] = "pending"
        rows.append(row)
    return checked(pd.DataFrame(rows), f"study {described['name']} in {store.url}")


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
    absent = [c for c in (*IDENTITY, *STATE) if c not in frame.columns and c not in OPTIONAL]
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
    frame["stage"] = frame["stage"].where(frame["stage"].notna(), STAGES[-1])
    _refuse(frame, ~frame["stage"].isin(STAGES), "stage", where)
    done, scored = frame["status"] == "done", frame["stage"] == STAGES[-1]
    for column in SCORES:
        _refuse(frame, done & scored & ~frame[column].between(0.0, 1.0), column, where)
        frame.loc[~(done & scored), column] = float("nan")
    if not scored.all():
        frame = frame if COLLISIONS in frame else frame.assign(**{COLLISIONS: float("nan")})
        _refuse(frame, done & ~scored & ~frame[COLLISIONS].ge(0.0), COLLISIONS, where)
    frame["seed"] = frame["seed"].astype("int64")
    twice = frame.duplicated(["study", "dataset", "method", "seed", "setting"])
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
