"""Stages that train nothing: they publish small artefacts, slowly enough to be killed, and keep a diary.

They keep the contract of bbqrec.stages. The diary is the folder <store>/diary with an event per file; FAKE_STAGES in
the environment of the workers holds JSON: {"seconds": of an epoch, "fail": {key: message}, "diverge": {key: message}}.
A trial scores epoch / 100 + dropout; a run, whatever its config, epoch / 100.
"""

import json
import os
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import bbqrec
from bbqrec.errors import Diverged
from bbqrec.schema import EpochReport

CODES = {"loss/total": 1.0, "codes/used_0_id": 5.0, "codes/perplexity_1_text": 3.5}


def run_quantizer(run, dataset, store, *, attempt, provenance=None, device="auto") -> Iterator[EpochReport]:
    if run.teacher is not None:
        assert store.has("recommender", run.teacher.recommender_key), "started before its teacher"
    yield from _stage("quantizer", run.quantizer_key, run.quantizer.epochs, run, store, attempt)


def run_recommender(
    run, dataset, store, *, attempt, provenance=None, device="auto", trial=False
) -> Iterator[EpochReport]:
    assert run.quantizer is None or store.has("quantizer", run.quantizer_key), "started before its quantizer"
    stage = "trial" if trial else "recommender"
    yield from _stage(stage, run.recommender_key, run.recommender.epochs, run, store, attempt)


def _stage(stage: str, key: str, epochs: int, run, store, attempt: str) -> Iterator[EpochReport]:
    if store.has(stage, key):
        return
    settings = json.loads(os.environ.get("FAKE_STAGES", "{}"))
    note(
        store.url, event="begin", stage=stage, key=key, code=bbqrec.__file__, gpu=os.environ.get("CUDA_VISIBLE_DEVICES")
    )
    saved = store.load_progress(stage, key)
    bonus = run.recommender.dropout if stage == "trial" else 0.0
    lines = [{"valid/ndcg@10": epoch / 100 + bonus} for epoch in range(1, epochs + 1)]
    for epoch in range(saved.epoch + 1 if saved else 1, epochs + 1):
        time.sleep(settings.get("seconds", 0.02))
        if key in settings.get("fail", {}):
            raise RuntimeError(settings["fail"][key])
        if key in settings.get("diverge", {}):
            raise Diverged(settings["diverge"][key], "lower it")
        note(store.url, event="epoch", stage=stage, key=key, epoch=epoch)
        log = json.dumps({"metrics": lines[:epoch]}).encode()
        store.save_progress(stage, key, attempt, epoch, {"state": b"x", "log.json": log})
        metrics = CODES if stage == "quantizer" else {**lines[epoch - 1], "test/ndcg@10": 1.0}
        yield EpochReport(stage=stage, epoch=epoch, epochs=epochs, metrics=metrics)
    row = {"run_key": key, "seed": run.seed, "scores": {"valid": {"ndcg@10": epochs / 100}, "test": {"ndcg@10": 0.5}}}
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "row.json").write_text(json.dumps(row))
        Path(folder, "metrics.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
        store.publish(stage, key, folder, attempt)
    store.clear_progress(stage, key)
    note(store.url, event="end", stage=stage, key=key)


def note(store: str, **event) -> None:
    """Adds an event to the diary."""
    folder = Path(store, "diary")
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{time.time_ns()}-{uuid.uuid4().hex[:6]}.json"
    hidden = path.with_suffix(".new")
    hidden.write_text(json.dumps({**event, "pid": os.getpid(), "time": time.time()}))
    hidden.rename(path)


def diary(store: str) -> list[dict]:
    """All events in order."""
    return [json.loads(path.read_text()) for path in sorted(Path(store, "diary").glob("*.json"))]
