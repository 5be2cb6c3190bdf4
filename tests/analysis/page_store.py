"""Stores for the page: whole studies with ranks, curves, configs and codebooks, made without training."""

import io
import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from analysis.baselines import TABLE_2
from analysis.labels import METHOD_LABELS
from bbqrec.metrics import scores
from bbqrec.store import Store

ABLATIONS = tuple(name for name in METHOD_LABELS if name.startswith("bbqrec"))
EPOCHS = 60


def cell_of(
    method: str, dataset: str, seed: int, key: str, status: str = "done", setting: str | None = None, **more: Any
):
    """A cell of a study file."""
    return {
        "method": method,
        "label": METHOD_LABELS[method].plain,
        "dataset": dataset,
        "fingerprint": "f" * 64,
        "seed": seed,
        "setting": setting,
        "quantizer_key": f"q-{key}",
        "run_key": key,
        "status": status,
        "error": None,
        "note": None,
    } | more


def write(store: Store, name: str, cells: list[dict[str, Any]], **more: Any) -> None:
    about = {"name": name, "key": f"{name}-01234567", "profile": "small", "overrides": {}, "cells": cells}
    store.write_json(f"study/{name}.json", about | more)


def publish(store: Store, cell: dict[str, Any], users: int, level: float = 0.05, config: dict | None = None) -> None:
    """A finished run whose users' ranks, scores and curve go together; better methods come later in METHOD_LABELS."""
    generator = np.random.default_rng([*cell["run_key"].encode()])
    found = np.ceil(10 * (generator.random(users) / level) ** 2).clip(1).astype(np.int32)
    test = scores(found)
    best = test["ndcg@10"] * 1.1
    log = [{"epoch": e, "valid/ndcg@10": best * (1 - 0.9 ** (e + generator.random()))} for e in range(1, EPOCHS + 1)]
    settings = {"levels": 3, "codes": 256, "width": 128, "components": ["id", "text", "image"]}
    row = {
        "run_key": cell["run_key"],
        "quantizer_key": cell["quantizer_key"],
        "dataset": cell["dataset"],
        "fingerprint": cell["fingerprint"],
        "seed": cell["seed"],
        "config": config or {"quantizer": settings, "recommender": {"buckets": 100, "epochs": EPOCHS}},
        "scores": {"valid": {name: value * 1.1 for name, value in test.items()}, "test": test},
        "collisions": {"items": 12000, "distinct": 11990, "excess": 10},
        "codebook": {
            f"codes/{what}_{level}_{signal}": float(100 + level + (what == "used") * 50)
            for what in ("used", "perplexity")
            for level in range(3)
            for signal in ("id", "text", "image")
        },
        "costs": {"quantizer_seconds": 400.0, "recommender_seconds": 3600.0, "recommender_epochs": EPOCHS},
        "provenance": {"version": "0.1.0", "commit": "0123456789abcdef", "dirty": False, "device": "1 GPU"},
    }
    buffer = io.BytesIO()
    np.save(buffer, found)
    files = {
        "row.json": json.dumps(row).encode(),
        "ranks_test.npy": buffer.getvalue(),
        "metrics.jsonl": "".join(json.dumps(line) + "\n" for line in log).encode(),
    }
    with TemporaryDirectory() as folder:
        for name, data in files.items():
            Path(folder, name).write_bytes(data)
        store.publish("recommender", cell["run_key"], folder, attempt="good")


def fill_large(store: Store, users: int = 40_000, seeds: int = 5) -> int:
    """Tables 2, 3 and 4, Figures 3 and 4 over four data sets and five seeds; returns the number of runs."""
    datasets = ("beauty", "sports", "clothing", "toys")
    studies: dict[str, list[dict[str, Any]]] = {"ablations": [], "baselines": [], "hyperparameters": []}
    for dataset in datasets:
        for seed in range(seeds):
            for name, methods in (("ablations", ABLATIONS), ("baselines", TABLE_2.methods)):
                for method in methods:
                    studies[name].append(cell_of(method, dataset, seed, f"{dataset}-{method.replace('/', '-')}-{seed}"))
            for field in ("quantizer.levels", "recommender.buckets"):
                for value in (1, 2, 3, 4):
                    key = f"{dataset}-{field}-{value}-{seed}"
                    studies["hyperparameters"].append(cell_of("bbqrec", dataset, seed, key, setting=f"{field}={value}"))
    runs: dict[str, dict[str, Any]] = {}
    for name, cells in studies.items():
        write(store, name, cells)
        runs |= {cell["run_key"]: cell for cell in cells}
    for cell in runs.values():
        publish(store, cell, users, 0.03 + 0.002 * list(METHOD_LABELS).index(cell["method"]))
    return len(runs)


HOSTILE = "<img src=x onerror=alert(1)>"
"""A data set's name, and part of an error."""
ERROR = f"Traceback (most recent call last):\n  File /home/somebody/x.py\nRuntimeError: {HOSTILE} in /home/somebody/w"


def fill_live(store: Store, users: int = 400) -> None:
    """A study in the middle: on toys all states, BBQRec with two seeds, on a data set with a hostile name one run done.

    bbqrec/no-mim runs and has a checkpoint, bbqrec/no-rec waits for its quantizer, bbqrec/no-u failed, bbqrec/s is
    damaged, bbqrec/e is pending and w/o image is the full model's own run.
    """
    toys = {method: cell_of(method, "toys", 0, f"toys-{method.replace('/', '-')}") for method in ABLATIONS}
    second = cell_of("bbqrec", "toys", 1, "toys-bbqrec-1")
    hostile = [cell_of(method, HOSTILE, 0, f"hostile-{method.replace('/', '-')}") for method in ("bbqrec", "bbqrec/s")]
    toys["bbqrec/no-mim"]["status"] = toys["bbqrec/no-rec"]["status"] = "running"
    toys["bbqrec/no-u"] |= {"status": "failed", "error": ERROR}
    toys["bbqrec/e"]["status"] = "pending"
    toys["bbqrec/no-image"]["run_key"] = toys["bbqrec"]["run_key"]
    hostile[1] |= {"status": "failed", "error": "out of memory"}
    cells = [*toys.values(), second, *hostile]
    command = "python sweeps/ablations.py --store /home/somebody/runs --dataset /home/somebody/data/toys"
    write(store, "ablations", cells, command=command, plan={"cells": len(cells), "recommender_runs": 11})
    levels = {"quantizer": {"levels": 2, "codes": 256, "components": ["id"]}, "recommender": {"buckets": 100}}
    for method in ("bbqrec", "bbqrec/s", "bbqrec/no-id", "bbqrec/no-text"):
        publish(store, toys[method], users, 0.08, config=levels if method == "bbqrec/no-id" else None)
    for cell in (second, hostile[0]):
        publish(store, cell, users, 0.08)
    metrics = [{"epoch": epoch, "valid/ndcg@10": 0.004 * epoch} for epoch in range(1, 13)]
    log = json.dumps({"seconds": 120.0, "metrics": metrics}).encode()
    store.save_progress("recommender", "toys-bbqrec-no-mim", "work", 12, {"log.json": log})
    log = json.dumps({"seconds": 6.0, "metrics": [{"epoch": 1}, {"epoch": 2}, {"epoch": 3}]}).encode()
    store.save_progress("quantizer", "q-toys-bbqrec-no-rec", "work", 3, {"log.json": log})
    damaged = Path(store.url, "recommender", "toys-bbqrec-s", "good", "row.json")
    damaged.write_text(damaged.read_text() + " ")
