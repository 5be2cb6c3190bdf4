"""How far the runs of an unfinished study are: epochs, time left and the curve so far, from their checkpoints."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from analysis.costs import duration
from analysis.curves import METRIC
from analysis.whole import StudyPart
from bbqrec.errors import InputError
from bbqrec.store import Store


@dataclass(frozen=True, kw_only=True)
class Live:
    """A run at its last checkpoint. `epochs` is the most it may take, `left` its seconds to go if it takes them all,
    None where not known; `curve` has (epoch, validation NDCG@10)."""

    stage: str
    epoch: int
    epochs: int | None
    left: float | None
    curve: tuple[tuple[int, float], ...] = ()

    @property
    def said(self) -> str:
        """ "recommender, epoch 7 of 20, at most 3.1 min to go"."""
        of = f" of {self.epochs}" if self.epochs else ""
        to_go = "" if self.left is None else f", at most {duration(self.left)} to go"
        return f"{self.stage}, epoch {self.epoch}{of}{to_go}"


def live_runs(part: StudyPart) -> dict[str, Live]:
    """Run key -> its progress, or that of the quantizer it waits for, of the cells that are running in a store."""
    if not isinstance(part.source, Store):
        return {}
    found: dict[str, Live] = {}
    for row in part.rows[part.rows["status"] == "running"].drop_duplicates("run_key").to_dict("records"):
        own = (("recommender", row["run_key"]), ("quantizer", row["quantizer_key"]))
        for stage, key in own if row["stage"] == "recommender" else own[1:]:
            live = _live(part, row, stage, key) if key else None
            if live is not None:
                found[row["run_key"]] = live
                break
    return found


def _live(part: StudyPart, row: Mapping[str, Any], stage: str, key: str) -> Live | None:
    """None for a run without a checkpoint, or with one that goes as it is read."""
    place = f"{stage}/{key}/progress"
    latest = _read(part.source, f"{place}/latest.json")
    try:
        newest = latest["checkpoints"][0]
        epoch, folder = int(newest["epoch"]), str(newest["folder"])
    except (TypeError, KeyError, IndexError, ValueError):
        return None
    epochs = _epochs(part, row, stage)
    log = _read(part.source, f"{place}/{folder}/log.json")
    try:
        spent = float(log["seconds"])
        curve = tuple((int(m["epoch"]), float(m[METRIC])) for m in log["metrics"] if m.get(METRIC) is not None)
    except (TypeError, KeyError, ValueError, AttributeError):
        return Live(stage=stage, epoch=epoch, epochs=epochs, left=None)
    left = None if epochs is None or epoch < 1 else max(0, epochs - epoch) * spent / epoch
    return Live(stage=stage, epoch=epoch, epochs=epochs, left=left, curve=curve)


def _epochs(part: StudyPart, row: Mapping[str, Any], stage: str) -> int | None:
    """What the cell's setting or the study says, or the configs of the runs of the same method, or of its variants."""
    for said in (row["setting"], row["overrides"]):
        for pair in str(said or "").split():
            name, _, value = pair.partition("=")
            if name == f"{stage}.epochs" and value.isdecimal():
                return int(value)
    methods = part.rows["method"]
    family = methods.str.partition("/")[0] == row["method"].partition("/")[0]
    for alike in (methods == row["method"], family):
        known = [part.configs[key].get(stage) for key in part.rows.loc[alike, "run_key"] if key in part.configs]
        epochs = [c["epochs"] for c in known if isinstance(c, Mapping) and isinstance(c.get("epochs"), int)]
        if epochs:
            return max(epochs)
    return None


def _read(source: Any, path: str) -> Any:
    try:
        return source.load_json(path)
    except (InputError, ValueError):  # written over as it was read, or a key that is no name
        return None
