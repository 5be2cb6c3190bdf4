"""The real stages, slowed down so that a fault can hit them at a chosen place, and with a diary of what they did.

FAULTS in the environment of the workers holds JSON. "diary": the folder of the events. Seconds of pauses: "seconds",
after every epoch; "saving", before every checkpoint; "publishing", in the middle of every publication; "ending", after
a run. "strike": what befalls a run once, before an epoch, as {key: [epoch, "raise" | "nan" | "memory"]}; [0, "damage"]
damages the quantizer before the recommender reads it.
"""

import json
import os
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import ray
import torch

from bbqrec import stages
from bbqrec.quantizer_training import QuantizerTrainer
from bbqrec.recommender_training import RecommenderTrainer
from bbqrec.schema import EpochReport

HOG_BYTES, HOG_STEP = 6 * 2**30, 2**28
at_hand = ""
"""Key of the run that this process computes."""


def settings() -> dict[str, Any]:
    return json.loads(os.environ["FAULTS"])


def note(**event: Any) -> None:
    """Adds an event to the diary."""
    path = Path(settings()["diary"]) / f"{time.time_ns()}-{uuid.uuid4().hex[:6]}.json"
    hidden = path.with_suffix(".new")
    hidden.write_text(json.dumps({**event, "key": at_hand, "pid": os.getpid(), "time": time.time()}))
    hidden.rename(path)


def run_quantizer(run, dataset, store, **options) -> Iterator[EpochReport]:
    yield from _watched("quantizer", run.quantizer_key, stages.run_quantizer, run, dataset, store, **options)


def run_recommender(run, dataset, store, **options) -> Iterator[EpochReport]:
    yield from _watched("recommender", run.recommender_key, stages.run_recommender, run, dataset, store, **options)


def _watched(stage: str, key: str, compute: Callable, run, dataset, store, **options) -> Iterator[EpochReport]:
    global at_hand
    at_hand = key
    note(event="begin", stage=stage, node=ray.get_runtime_context().get_node_id(), attempt=options["attempt"])
    _slow_down(store)
    if _struck(0) == "damage":
        damage(store, "quantizer", run.quantizer_key, "codes.npy")
    for report in compute(run, dataset, store, **options):
        note(event="epoch", stage=stage, epoch=report.epoch)
        time.sleep(settings()["seconds"])
        yield report
        at_hand = key
    note(event="end", stage=stage)
    time.sleep(settings().get("ending", 0.0))


def _slow_down(store) -> None:
    """Pauses before a checkpoint is saved, and in every publication once, with some of its files uploaded.

    The diary says which publication counts in the end.
    """
    if hasattr(store, "slow"):
        return  # this trial computes what it needs again
    store.slow, upload, publish, save = True, store._files.upload, store.publish, store.save_progress
    begun: set[str] = set()

    def pausing(path: Path, name: str) -> None:
        upload(path, name)
        attempt = name.rpartition("/")[0]
        if attempt not in begun:
            begun.add(attempt)
            note(event="publishing")
            time.sleep(settings()["publishing"])

    def publishing(kind: str, key: str, folder: Path, attempt: str) -> None:
        publish(kind, key, folder, attempt)
        manifest = store._manifest(kind, key)
        note(event="published", won=manifest is not None and manifest["attempt"] == attempt)

    def saving(kind: str, key: str, attempt: str, epoch: int, blob: dict[str, bytes]) -> None:
        note(event="saving", epoch=epoch)
        time.sleep(settings().get("saving", 0.0))
        save(kind, key, attempt, epoch, blob)

    store._files.upload, store.publish, store.save_progress = pausing, publishing, saving


def damage(store, kind: str, key: str, file: str) -> None:
    """Flips a bit of a published file."""
    name = f"{kind}/{key}/{store._manifest(kind, key)['attempt']}/{file}"
    data = store._files.read(name)
    store._files.write(name, data[:-1] + bytes([data[-1] ^ 1]))


def _struck(epoch: int) -> str | None:
    """What befalls this epoch of the run at hand, if it has not yet."""
    when, what = settings().get("strike", {}).get(at_hand, (None, None))
    if epoch != when:
        return None
    try:
        (Path(settings()["diary"]) / f"{at_hand}-struck").touch(exist_ok=False)
    except FileExistsError:
        return None
    note(event="strike")
    return what


def _exposed(train_epoch: Callable) -> Callable:
    def epoch(trainer) -> dict[str, float]:
        match _struck(trainer.epoch + 1):
            case "raise":
                raise RuntimeError("a fault in the third layer of cables")
            case "nan":
                with torch.no_grad():
                    for parameter in trainer.model.parameters():
                        parameter.fill_(float("nan"))
            case "memory":
                hog = []
                while len(hog) * HOG_STEP < HOG_BYTES:
                    hog.append(b"x" * HOG_STEP)
                    time.sleep(0.1)
                time.sleep(30)
                raise AssertionError("nobody minded")
        return train_epoch(trainer)

    return epoch


if "FAULTS" in os.environ:  # a worker of a study, not pytest, which imports this to collect the tests
    QuantizerTrainer.train_epoch = _exposed(QuantizerTrainer.train_epoch)
    RecommenderTrainer.train_epoch = _exposed(RecommenderTrainer.train_epoch)
