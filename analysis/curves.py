"""Learning curves: what the published runs of a study reported, epoch by epoch."""

import json
import logging
import math
from pathlib import Path

import pandas as pd

from analysis.rows import exported_file, open_store
from bbqrec.errors import InputError
from bbqrec.store import Store

log = logging.getLogger(__name__)

METRIC = "valid/ndcg@10"
"""By which checkpoints are selected."""
COLUMNS = ("dataset", "method", "label", "setting", "seed", "run_key", "epoch", METRIC)
EXPORT = "curves.csv"


def load_curves(source: Store | str | Path, rows: pd.DataFrame) -> pd.DataFrame:
    """A row per cell and epoch of the recommender, for the cells that are done.

    From a store, or from the curves.csv beside exported rows; without such a file no curves. A run whose log is gone or
    damaged has none either, and a warning names it. Raises InputError for a log of another form.
    """
    exported = exported_file(source)
    if exported is not None:
        return _from_file(exported.with_name(EXPORT), rows)
    store = open_store(source)
    found: dict[str, list[tuple[int, float]]] = {}
    lines = []
    for row in rows[rows["status"] == "done"].itertuples():
        if row.run_key not in found:
            found[row.run_key] = _epochs(store, row.run_key)
        about = (row.dataset, row.method, row.label, row.setting or "", row.seed, row.run_key)
        lines += [(*about, epoch, score) for epoch, score in found[row.run_key]]
    return pd.DataFrame(lines, columns=list(COLUMNS))


def _epochs(store: Store, key: str) -> list[tuple[int, float]]:
    try:
        data = store.read_bytes("recommender", key, "metrics.jsonl")
    except InputError as damage:
        log.warning("no learning curve: %s", damage.what)
        return []
    try:
        reports = [json.loads(line) for line in data.decode().splitlines() if line.strip()]
        found = [(int(r["epoch"]), float(r[METRIC])) for r in reports if r.get(METRIC) is not None]
        if not all(math.isfinite(score) for _, score in found):
            raise ValueError(f"{METRIC} is no number")
        return found
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        what = f"metrics.jsonl of run {key} cannot be read ({type(error).__name__}: {error})"
        raise InputError(" ".join(what.split()), "remove the run from the store and rerun") from error


def _from_file(path: Path, rows: pd.DataFrame) -> pd.DataFrame:
    if not path.is_file():
        return pd.DataFrame(columns=list(COLUMNS))
    try:
        frame = pd.read_csv(path, dtype=str, keep_default_na=False)
        frame = frame.assign(setting=frame.get("setting", ""))[list(COLUMNS)]  # older exports have none
        frame = frame.astype({"seed": "int64", "epoch": "int64", METRIC: "float64"})
    except (OSError, ValueError, KeyError) as error:
        what = f"cannot read {path} ({' '.join(str(error).split())})"
        raise InputError(what, "export it again or remove it") from error
    if not frame[METRIC].map(math.isfinite).all():
        raise InputError(f"{path} has scores that are no numbers", "export it again or remove it")
    return frame[frame["run_key"].isin(rows["run_key"])].reset_index(drop=True)
