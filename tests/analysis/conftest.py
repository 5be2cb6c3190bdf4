"""Generated studies: rows with planted scores, and stores that hold them."""

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from planted import LEVEL, ranks_of

from analysis.baselines import TABLE_2
from analysis.labels import METHOD_LABELS
from analysis.rows import METRICS, SPLITS, checked
from bbqrec.metrics import scores
from bbqrec.store import Store

LABELS = {
    "bbqrec": "BBQRec",
    "bbqrec/no-mim": "w/o MIM",
    "bbqrec/no-rec": "w/o Rec",
    "bbqrec/no-u": "w/o U",
    "bbqrec/s": "S",
    "bbqrec/e": "E",
    "bbqrec/no-id": "w/o ID",
    "bbqrec/no-text": "w/o text",
    "bbqrec/no-image": "w/o image",
}
RATIO = {"recall@5": 1.0, "recall@10": 1.37, "ndcg@5": 0.7, "ndcg@10": 0.82}


def key_of(dataset: str, method: str, seed: int) -> str:
    return f"{dataset}.{method.replace('/', '.')}.{seed}"


def scores_of(dataset: str, method: str, seed: int) -> dict[str, dict[str, float]]:
    """Every method loses a fixed share of the full model's score; seeds lie 2 % apart."""
    level = LEVEL[dataset] * (1 - 0.03 * list(METHOD_LABELS).index(method)) * (1 + 0.02 * seed)
    return {s: {m: level * RATIO[m] * (1.1 if s == "valid" else 1.0) for m in METRICS} for s in SPLITS}


@pytest.fixture
def make_rows() -> Callable[..., pd.DataFrame]:
    """Rows of a finished study; Beauty has no images, so its full model and w/o image are one run."""

    def make(datasets=("toys",), methods=tuple(LABELS), seeds=1, **about: Any) -> pd.DataFrame:
        rows = []
        for dataset in datasets:
            for seed in range(seeds):
                for method in methods:
                    shown = "bbqrec" if dataset == "beauty" and method == "bbqrec/no-image" else method
                    found = scores_of(dataset, shown, seed)
                    rows.append(
                        {"study": "ablations", "profile": "small", "overrides": ""}
                        | {"method": method, "label": LABELS[method], "dataset": dataset, "seed": seed}
                        | {"status": "done", "error": None, "note": None, "fingerprint": "f" * 64}
                        | {"run_key": key_of(dataset, shown, seed), "quantizer_key": "00"}
                        | {"components": "id+text" if dataset == "beauty" else "id+text+image"}
                        | {f"{s}/{m}": found[s][m] for s in SPLITS for m in METRICS}
                        | about
                    )
        return checked(pd.DataFrame(rows), "made rows")

    return make


@pytest.fixture
def set_status() -> Callable[..., pd.DataFrame]:
    """The rows with another status (and error) where the given columns match."""

    def change(rows: pd.DataFrame, status: str, error: str | None = None, **where: Any) -> pd.DataFrame:
        rows = rows.copy()
        hit = np.logical_and.reduce([rows[column] == value for column, value in where.items()])
        assert hit.any(), where
        rows.loc[hit, "status"] = status
        rows.loc[hit, "error"] = error
        return checked(rows, "changed rows")

    return change


@pytest.fixture
def partial_rows(make_rows, set_status) -> pd.DataFrame:
    """Three data sets, three seeds, and everything that can go wrong with a cell."""
    rows = make_rows(("toys", "beauty", "synthetic"), seeds=3, overrides="recommender.epochs=2")
    rows = set_status(
        rows, "failed", "out of memory: 1.5_GiB & more at 100% in ~/a\\b", dataset="toys", method="bbqrec/no-u"
    )
    rows = set_status(rows, "failed", "loss is nan at epoch 3, step 17", dataset="toys", method="bbqrec/no-mim", seed=1)
    rows = set_status(rows, "pending", dataset="synthetic", method="bbqrec/no-rec")
    rows = set_status(rows, "running", dataset="synthetic", method="bbqrec/no-text")
    rows = set_status(rows, "failed", "no reason", dataset="synthetic", method="bbqrec/no-id")
    rows = set_status(rows, "pending", dataset="synthetic", method="bbqrec/e", seed=2)
    gone = (rows["dataset"] == "beauty") & rows["method"].isin(("bbqrec/no-u", "bbqrec/s"))
    return rows[~gone].reset_index(drop=True)


def row_of(dataset: str, method: str, seed: int) -> dict[str, Any]:
    """row.json as stage 2 writes it."""
    return {
        "run_key": key_of(dataset, method, seed),
        "quantizer_key": "00",
        "dataset": dataset,
        "fingerprint": "f" * 64,
        "seed": seed,
        "config": {"quantizer": {"components": ["id", "text", "image"]}},
        "scores": scores_of(dataset, method, seed),
        "collisions": {"items": 222, "distinct": 219},
        "id_collisions": {"items": 222, "distinct": 220},
        "codebook": {"codes/usage": 0.75},
        "costs": {"quantizer_seconds": 3.25, "recommender_seconds": 7.5, "best_epoch": 2},
        "provenance": {"version": "0.10", "commit": "1234567", "dirty": False, "host": "secret", "attempts": 1},
    }


@pytest.fixture
def publish(tmp_path: Path) -> Callable[..., None]:
    """Puts a finished run into a store; `changes` replace fields of its row.json, `files` whole files."""

    def put(store: Store, dataset: str, method: str, seed: int = 0, changes=None, files=None) -> None:
        key = key_of(dataset, method, seed)
        folder = tmp_path / "made" / key
        folder.mkdir(parents=True, exist_ok=True)
        best = scores_of(dataset, method, seed)["valid"]["ndcg@10"]
        log = [
            {"epoch": e, "loss": 9.0 - e, "valid/ndcg@10": best * share} for e, share in ((1, 0.5), (2, 1.0), (3, 0.9))
        ]
        contents = {
            "row.json": json.dumps(row_of(dataset, method, seed) | (changes or {})).encode(),
            "metrics.jsonl": "".join(json.dumps(line) + "\n" for line in log).encode(),
        }
        for name, data in (contents | (files or {})).items():
            (folder / name).write_bytes(data)
        store.publish("recommender", key, folder, "attempt-1")

    return put


@pytest.fixture
def write_study() -> Callable[..., None]:
    """Writes a study file in which every cell has the same status."""

    def write(store: Store, datasets=("toys",), methods=tuple(LABELS), seeds=1, status="done", **changes: Any) -> None:
        cells = [
            {
                "method": m,
                "label": METHOD_LABELS[m].plain,
                "dataset": d,
                "fingerprint": "f" * 64,
                "seed": s,
                "quantizer_key": "00",
                "run_key": key_of(d, m, s),
            }
            | {"status": status, "error": None, "note": None}
            for d in datasets
            for s in range(seeds)
            for m in methods
        ]
        about = {"name": "ablations", "profile": "tiny", "overrides": {"recommender.epochs": "2"}, "cells": cells}
        store.write_json("study/ablations.json", about | changes)

    return write


@pytest.fixture
def make_baselines() -> Callable[..., tuple[pd.DataFrame, dict[str, np.ndarray]]]:
    """Rows of a finished comparison of methods, and the ranks behind their scores."""

    def make(datasets=("toys",), methods=TABLE_2.methods, seeds=1) -> tuple[pd.DataFrame, dict[str, np.ndarray]]:
        rows, ranks = [], {}
        for dataset, seed, method in itertools.product(datasets, range(seeds), methods):
            key = key_of(dataset, method, seed)
            found = ranks_of(dataset, method, seed)
            ranks[key] = np.minimum(found, 11).astype(np.int64)
            rows.append(
                {"study": "baselines", "profile": "small", "overrides": "", "note": None, "fingerprint": "f" * 64}
                | {"method": method, "label": METHOD_LABELS[method].plain, "dataset": dataset, "seed": seed}
                | {"status": "done", "error": None, "run_key": key, "quantizer_key": None}
                | {"components": "id+text+image" if method == "bbqrec" else "id"}
                | {f"{split}/{metric}": value for split in SPLITS for metric, value in scores(found).items()}
            )
        return checked(pd.DataFrame(rows), "made rows"), ranks

    return make


@pytest.fixture
def make_quantizers() -> Callable[..., pd.DataFrame]:
    """Rows of a finished study of quantizers."""

    def make(datasets=("toys",), methods=("tiger", "letter", "bbqrec"), levels=(2, 3, 4), seeds=1) -> pd.DataFrame:
        rows = [
            {"study": "collisions", "stage": "quantizer", "profile": "paper", "overrides": "", "note": None}
            | {"method": method, "label": METHOD_LABELS[method].plain, "dataset": dataset, "seed": seed}
            | {"setting": f"quantizer.levels={number}", "status": "done", "error": None, "fingerprint": "f" * 64}
            | {"run_key": f"{dataset}.{method}.{seed}.{number}", "quantizer_key": f"{dataset}.{method}.{seed}.{number}"}
            | {"components": "id+text+image", "collisions/items": 11924}
            | {"collisions/excess": 3000 // (number**3) // 10 ** methods.index(method) + seed}
            for dataset, seed, number, method in itertools.product(datasets, range(seeds), levels, methods)
        ]
        return checked(pd.DataFrame(rows), "made rows")

    return make
