"""What a store says of a study's runs: row.json of each, as columns of `analysis.rows`."""

from collections.abc import Mapping
from typing import Any

from analysis.studies import AGAIN
from bbqrec.errors import InputError
from bbqrec.store import Store

METRICS = ("recall@5", "recall@10", "ndcg@5", "ndcg@10")
SPLITS = ("valid", "test")
SAME = ("run_key", "fingerprint", "seed")
"""What a run and a cell that shows it must agree on. Not on the data set's name: a copy may have another."""
NUMBERS = ("data", "costs", "collisions", "id_collisions", "codebook")
"""Groups of row.json whose numbers become columns."""
EXCESS = "excess"
"""Of `collisions`: |items| - |distinct IDs|, what the paper counts."""
PROVENANCE = ("version", "commit", "dirty", "device", "torch", "ray", "python", "started", "finished", "attempts")
RERUN = "remove the run from the store and rerun"


def published(store: Store, stage: str, key: str) -> dict[str, Any]:
    """The `row` of a run or its `damage`; {} if the store does not hold it. A quantizer's row gets its config."""
    try:
        held = store.has(stage, key)
    except ValueError as error:  # not a name that a store could hold
        raise InputError(f"the study has a cell with run_key {key!r}", AGAIN) from error
    if not held:
        return {}
    try:
        row = store.read_json(stage, key, "row.json")
        if stage == "quantizer" and isinstance(row, dict):
            row["config"] = {"quantizer": store.read_json(stage, key, "config.json")}
        return {"row": row}
    except InputError as damage:
        return {"damage": damage.what}
    except ValueError as error:
        raise InputError(f"row.json of run {key} is not JSON", RERUN) from error


def columns(found: Mapping[str, Any], stage: str, cell: Mapping[str, Any]) -> dict[str, Any]:
    """What the store says of a cell's run, out of `published`; {} if it does not hold it."""
    if "row" not in found:
        return {"error": found["damage"], "status": "pending"} if found else {}
    row = found["row"]
    wrong = _wrong_quantizer(row, cell) if stage == "quantizer" else _wrong(row, cell)
    if wrong:
        raise InputError(f"row.json of run {cell['run_key']} {wrong}", RERUN)
    scores = row["scores"] if stage == "recommender" else {}
    flat = {f"{split}/{metric}": scores[split][metric] for split in SPLITS if scores for metric in METRICS}
    for group in NUMBERS:
        values = row.get(group) or {}
        flat |= {f"{group}/{name}": float(v) for name, v in values.items() if isinstance(v, int | float)}
    origin = row.get("provenance") or {}
    flat |= {f"provenance/{name}": None if origin.get(name) is None else str(origin[name]) for name in PROVENANCE}
    first = (row.get("quantizer_provenance") or {}).get("commit")  # a shared stage 1 may be older
    flat["provenance/quantizer_commit"] = None if first is None else str(first)
    signals = "+".join(_signals(row.get("config") or {}))
    data = row.get("fingerprint") if stage == "recommender" else cell.get("fingerprint")
    about = {
        "components": signals,
        "fingerprint": data,
        "teacher_key": row.get("teacher_key") or cell.get("teacher_key"),
    }
    return {"status": "done", "error": None, **about, **flat}


def config_of(found: Mapping[str, Any]) -> Mapping[str, Any]:
    """The config of a run, out of `published`; {} if it is not known."""
    row = found.get("row")
    config = row.get("config") if isinstance(row, Mapping) else None
    return config if isinstance(config, Mapping) else {}


def seconds(found: Mapping[str, Any]) -> float:
    """Seconds of work of a recommender, out of `published`; NaN if they are not known."""
    value = ((found.get("row") or {}).get("costs") or {}).get("recommender_seconds")
    return float(value) if isinstance(value, int | float) else float("nan")


def _signals(config: Mapping[str, Any]) -> list[str]:
    """The behaviour signals that a run reads. Models over items read IDs, and the modalities they name."""
    quantizer = config.get("quantizer")
    if quantizer is not None:
        return quantizer.get("components", ["text"])  # one that has no choice of them (LETTER's) reads text
    return ["id", *config.get("recommender", {}).get("features", [])] if config else []


def _wrong(row: Any, cell: Mapping[str, Any]) -> str | None:
    """Why a recommender's row.json cannot be this cell's."""
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


def _wrong_quantizer(row: Any, cell: Mapping[str, Any]) -> str | None:
    """Why a quantizer's row.json cannot be this cell's. Its key stands for seed and data."""
    if not isinstance(row, dict):
        return "is no object"
    if row.get("key") != cell["run_key"]:
        return f"has key {row.get('key')!r}, the study {cell['run_key']!r}"
    count = (row.get("collisions") or {}).get(EXCESS)
    return None if isinstance(count, int) else f"has no number of collisions/{EXCESS}"
