"""A report of a large store: the time and memory of `python -m analysis report` for 500 runs of 40,000 users."""

import io
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from bbqrec.methods import METHODS
from bbqrec.metrics import scores
from bbqrec.store import Store
from benchmarks.inputs import Inputs
from benchmarks.measure import Limit

USERS, RUNS = 40_000, 500
DATASETS, SEEDS = ("beauty", "sports", "clothing", "toys"), 7
STUDIES = {
    "ablations": tuple(name for name in METHODS if name == "bbqrec" or name.startswith("bbqrec/")),
    "baselines": tuple(name for name, method in METHODS.items() if "Table 2" in method.table),
}
METRICS = ("recall@5", "recall@10", "ndcg@5", "ndcg@10")


def large(inputs: Inputs, rounds: int) -> Iterator[Limit]:
    """Once: two studies on four data sets with seven seeds, statistics and figures included."""
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder, "store"))
        count = _fill(store)
        begun = time.perf_counter()
        command = [sys.executable, "-m", "analysis", "report", "--store", store.url, "--out", str(Path(folder, "out"))]
        subprocess.run(command, check=True, capture_output=True)
        seconds = time.perf_counter() - begun
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    name = f"Report of {count} runs x {USERS:,} users"
    yield Limit(name=name, unit="s", value=seconds, at_most=60.0, note="wall time")
    yield Limit(name=name, unit="GiB", value=peak / 2**30, at_most=2.0, note="peak of the process")


def _fill(store: Store) -> int:
    """Runs that differ as models do: most users' targets are found by none."""
    made: set[str] = set()
    for study, methods in STUDIES.items():
        cells = []
        for place, dataset in enumerate(DATASETS):
            ease = np.random.default_rng(place).random(USERS)
            for method in methods:
                for seed in range(SEEDS):
                    key = f"{dataset}-{method.replace('/', '.')}-{seed}"
                    about: dict[str, Any] = {"dataset": dataset, "seed": seed, "run_key": key, "fingerprint": dataset}
                    cells.append({"method": method, "label": METHODS[method].label, "status": "done", **about})
                    if key not in made and len(made) < RUNS:
                        made.add(key)
                        _publish(store, about, ease)
        described = {"name": study, "key": study, "profile": "small", "overrides": {}, "cells": cells}
        store.write_json(f"study/{study}.json", described)
    return len(made)


def _publish(store: Store, about: dict[str, Any], ease: np.ndarray) -> None:
    own = np.random.default_rng([*about["run_key"].encode()]).random(len(ease))
    ranks = np.ceil(60 * (0.6 * ease + 0.4 * own) ** 2).astype(np.int32).clip(1)
    found = {metric: float(value) for metric, value in scores(ranks).items()}
    config = {"quantizer": {"components": ["id", "text", "image"]}, "recommender": {}}
    costs = {"recommender_seconds": 60.0, "quantizer_seconds": 20.0}
    row = {**about, "scores": {"valid": found, "test": found}, "config": config, "costs": costs, "provenance": {}}
    lines = [json.dumps({"epoch": epoch, "valid/ndcg@10": found["ndcg@10"] * epoch / 20}) for epoch in range(1, 21)]
    array = io.BytesIO()
    np.save(array, ranks)
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "row.json").write_text(json.dumps(row))
        Path(folder, "metrics.jsonl").write_text("\n".join(lines))
        Path(folder, "ranks_test.npy").write_bytes(array.getvalue())
        store.publish("recommender", about["run_key"], folder, "made")
