"""Stages without a model, for measuring what a study costs beyond its runs. They keep the contract of bbqrec.stages."""

import json
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bbqrec.run import RunConfig
from bbqrec.schema import Dataset, EpochReport
from bbqrec.store import Store

SECONDS = "BENCHMARK_TRIVIAL_SECONDS"
"""Environment variable: how long a stage takes. It sleeps: neighbours on the machine do not change that."""


def run_quantizer(run: RunConfig, dataset: Dataset, store: Store, **options: Any) -> Iterator[EpochReport]:
    assert run.quantizer_key is not None
    yield from _stage("quantizer", run.quantizer_key, store, options["attempt"])


def run_recommender(run: RunConfig, dataset: Dataset, store: Store, **options: Any) -> Iterator[EpochReport]:
    yield from _stage("recommender", run.recommender_key, store, options["attempt"])


def _stage(stage: str, key: str, store: Store, attempt: str) -> Iterator[EpochReport]:
    """Reports one epoch and publishes when it began and when it had done its work."""
    begun = time.time()
    time.sleep(float(os.environ.get(SECONDS, "0")))
    yield EpochReport(stage=stage, epoch=1, epochs=1, metrics={"valid/ndcg@10": 0.5})
    with tempfile.TemporaryDirectory() as folder:
        row = {"scores": {"valid": {"ndcg@10": 0.5}}, "begun": begun, "ended": time.time()}
        Path(folder, "row.json").write_text(json.dumps(row))
        store.publish(stage, key, folder, attempt)
