"""A store as studies, tunings and faults leave it, made without training."""

import io
import json
import os
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from bbqrec.metrics import scores
from bbqrec.store import Store

FULL, PLAIN, SASREC, LETTER = "aa10000000000001", "aa20000000000002", "cc30000000000003", "dd40000000000004"
SHARED, TAUGHT, LONELY = "0a50000000000005", "0b60000000000006", "0c70000000000007"
RUNNING, TRIAL = "ee80000000000008", "ff90000000000009"
ORIGIN = {"commit": "1234567890", "dirty": False, "host": "h", "started": "2026-01-01T00:00:00+00:00", "ray": "2.60.0"}
RANKS = {
    FULL: np.array([1, 2, 3, 2000, 5, 11], dtype=np.int32),
    PLAIN: np.array([1, 3, 2, 2000, 2000, 4], dtype=np.int32),
}


def npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def put(store: Store, kind: str, key: str, row: Any, **files: bytes) -> None:
    with TemporaryDirectory() as folder:
        for name, data in {"row.json": json.dumps(row).encode(), "metrics.jsonl": b"{}\n", **files}.items():
            Path(folder, name.replace("_json", ".json").replace("_npy", ".npy")).write_bytes(data)
        store.publish(kind, key, folder, attempt="good")


def recommender(key: str, quantizer: str | None, config: dict, seconds: float, teacher: str | None = None) -> dict:
    kinds = {
        "quantizer": quantizer and "quantizer",
        "recommender": "recommender" if quantizer else "recommender/sasrec",
    }
    found = scores(RANKS.get(key, np.array([1, 7, 9, 2000, 4, 3])))
    return {
        "run_key": key, "quantizer_key": quantizer, "teacher_key": teacher, "dataset": "toys", "fingerprint": "f" * 64,
        "seed": 0, "config": {"quantizer": quantizer and {"levels": 3}, "recommender": config, "kinds": kinds},
        "scores": {"valid": found, "test": found}, "selected_by": {"ndcg@10": 0.5},
        "costs": {"recommender_seconds": seconds, "recommender_epochs": 7},
        "provenance": ORIGIN | {"finished": "2026-01-02T03:04"},
    }  # fmt: skip


def fill(store: Store) -> None:
    """Two runs that share a quantizer, LETTER and its teacher, a quantizer of no use, a trial, a run at work."""
    for key in (SHARED, TAUGHT, LONELY):
        row = {"key": key, "costs": {"seconds": 30.0, "epochs": 4}, "provenance": ORIGIN, "collisions": {"excess": 2}}
        put(store, "quantizer", key, row, config_json=json.dumps({"levels": 3, "width": int(key[1], 16)}).encode())
    for key, similarity, seconds in ((FULL, True, 100.0), (PLAIN, False, 90.0)):
        row = recommender(key, SHARED, {"similarity": similarity, "heads": 4}, seconds)
        put(store, "recommender", key, row, ranks_test_npy=npy(RANKS[key]))
    put(store, "recommender", SASREC, recommender(SASREC, None, {"layers": 2}, 50.0))
    put(store, "recommender", LETTER, recommender(LETTER, TAUGHT, {"heads": 4}, 80.0, teacher=SASREC))
    put(store, "trial", TRIAL, recommender(TRIAL, SHARED, {"heads": 2}, 9.0) | {"scores": {}})
    store.save_progress("recommender", RUNNING, "work", 3, {"state": b"s", "log.json": b"{}"})
    cell = {"dataset": "toys", "seed": 0, "label": "x", "status": "done", "setting": None}
    cells = [
        cell | {"method": "bbqrec", "run_key": FULL, "quantizer_key": SHARED},
        cell | {"method": "bbqrec/s", "run_key": PLAIN, "quantizer_key": SHARED},
        cell | {"method": "letter", "run_key": LETTER, "quantizer_key": TAUGHT, "teacher_key": SASREC},
        cell | {"method": "bbqrec/e", "run_key": RUNNING, "quantizer_key": SHARED, "seed": 1, "status": "running"},
    ]
    for name in ("ablations", "ablations-01234567"):
        store.write_json(f"study/{name}.json", {"name": "ablations", "key": "ablations-01234567", "cells": cells})


def leave_behind(store: Store) -> set[str]:
    """What faults leave in a filled store; the names of what `prune` should find."""
    hidden = "0123456789abcdef" * 2
    for name in (
        f"quantizer/{SHARED}/lost/codes.npy",  # another attempt was faster
        f"recommender/{RUNNING}/cut/row.json",  # killed before it was published
        f"recommender/{FULL}/progress/good-2/state",  # killed before its checkpoints were removed
        f"recommender/{RUNNING}/progress/work-2/state",  # killed before it was listed
        "dataset/abc/driver/dataset.json",
        f".writable-{hidden}",
        f"study/.ablations.json-{hidden}",
        f"quantizer/{SHARED}/.manifest.json-{hidden}",
    ):
        store._files.write(name, b"leftover")
    return {
        f"quantizer/{SHARED}/lost",
        f"recommender/{RUNNING}/cut",
        f"recommender/{FULL}/progress",
        f"recommender/{RUNNING}/progress/work-2",
        "dataset/abc/driver",
        f".writable-{hidden}",
        f"study/.ablations.json-{hidden}",
        f"quantizer/{SHARED}/.manifest.json-{hidden}",
    }


def age(root: str, days: float = 3.0) -> None:
    """As if nothing in a local store had changed for days."""
    then = time.time() - days * 86400
    for path in Path(root).rglob("*"):
        os.utime(path, (then, then))


def contents(root: str) -> set[str]:
    """Every file of a local store."""
    return {path.relative_to(root).as_posix() for path in Path(root).rglob("*") if path.is_file()}
