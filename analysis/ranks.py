"""Every test user's rank, as far as the metrics look: from a store, or from ranks.npz beside exported rows.

ranks.npz holds an array of bytes per run, named by its key: the rank of each user's target, or PLACES + 1 for one that
is not among the first PLACES. Compressed it takes about a bit per user and run.
"""

import io
import logging
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Int

from analysis.rows import METRICS, exported_file, open_store
from bbqrec.errors import InputError
from bbqrec.metrics import CUTOFFS, scores
from bbqrec.store import Store

log = logging.getLogger(__name__)

PLACES = max(CUTOFFS)
EXPORT = "ranks.npz"
TOLERANCE = 1e-6
"""Of a score that is computed again from its ranks."""

Ranks = Mapping[str, Int[np.ndarray, " U"]]
"""By run key, clipped at PLACES + 1."""


def load_ranks(source: Store | str | Path, rows: pd.DataFrame) -> Ranks:
    """Of the recommenders of the rows that are done.

    From a store, or from the ranks.npz beside exported rows; without such a file none. A run whose ranks are gone or
    damaged has none either, and a warning names it. Raises InputError for ranks that cannot be the run's.
    """
    done = rows[(rows["status"] == "done") & (rows["stage"] == "recommender")].drop_duplicates("run_key")
    exported = exported_file(source)
    if exported is None:
        found = _from_store(open_store(source), list(done["run_key"]))
    else:
        found = _from_file(exported.with_name(EXPORT), list(done["run_key"]))
    for row in done.to_dict("records"):
        if row["run_key"] in found:
            _check(row, found[row["run_key"]])
    return found


def export_ranks(ranks: Ranks, path: Path) -> Path:
    """Writes ranks.npz; `load_ranks` reads it back. The same ranks make the same bytes."""
    with path.open("wb") as file:
        np.savez_compressed(file, **{key: ranks[key].astype(np.uint8) for key in sorted(ranks)})
    return path


def _from_store(store: Store, keys: list[str]) -> dict[str, np.ndarray]:
    found = {}
    for key in keys:
        try:
            data = store.read_bytes("recommender", key, "ranks_test.npy")
        except InputError as damage:
            log.warning("no ranks: %s", damage.what)
            continue
        try:
            ranks = np.load(io.BytesIO(data), allow_pickle=False)
        except (ValueError, EOFError) as error:
            raise InputError(f"ranks_test.npy of run {key} cannot be read", "remove the run and rerun") from error
        if ranks.ndim != 1 or ranks.dtype.kind not in "iu" or not len(ranks) or ranks.min() < 1:
            raise InputError(f"ranks_test.npy of run {key} holds no ranks", "remove the run and rerun")
        found[key] = np.minimum(ranks, PLACES + 1).astype(np.int64)
    return found


def _from_file(path: Path, keys: list[str]) -> dict[str, np.ndarray]:
    if not path.is_file():
        return {}
    try:
        archive = np.load(path, allow_pickle=False)
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise ValueError("one array, not an archive of them")
        with archive:
            found = {key: archive[key] for key in keys if key in archive}
    except (OSError, ValueError, EOFError, AttributeError, zipfile.BadZipFile, zlib.error) as error:
        said = " ".join(str(error).split())
        raise InputError(f"cannot read {path} ({said})", "export it again or remove it") from error
    for key, ranks in found.items():
        if ranks.ndim != 1 or ranks.dtype != np.uint8 or not len(ranks) or ranks.min() < 1 or ranks.max() > PLACES + 1:
            raise InputError(f"{path} holds no ranks for run {key}", "export it again or remove it")
    return {key: ranks.astype(np.int64) for key, ranks in found.items()}


def _check(row: Mapping[str, object], ranks: np.ndarray) -> None:
    """Raises InputError for ranks that give other scores than the run's."""
    again = scores(ranks)
    for metric in METRICS:
        score = float(str(row[f"test/{metric}"]))
        if abs(again[metric] - score) > TOLERANCE:
            raise InputError(
                f"the ranks of run {row['run_key']} give test {metric} {again[metric]:.6f}, its row says {score:.6f}",
                "export the rows and ranks again, or remove the run from the store and rerun",
            )
