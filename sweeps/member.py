"""A member of a population as a Ray Tune trial: it trains stage 2 with the values that it has at the moment.

Its whole state goes into a checkpoint after every epoch; that may be taken over by a member with other values.
"""

import json
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from ray import tune

from bbqrec.artefacts import load_codes
from bbqrec.methods import run_from_json
from bbqrec.native import keep_freed_memory
from bbqrec.overrides import with_overrides
from bbqrec.recommender_training import RecommenderTrainer
from bbqrec.store import Store
from sweeps import devices
from sweeps.metrics import RunMetrics
from sweeps.scores import SCORE
from sweeps.trainable import dataset_of

DIVERGED = -1.0
"""The score of a member whose loss is not finite: worse than any other, so that it is the first to be replaced."""
STATE, PAST = "state.safetensors", "past.json"
"""Files of a checkpoint: weights and optimiser, and what became of them so far."""


def train(config: dict[str, Any]) -> None:
    """The Tune function of a member. See `epochs`."""
    torch.set_num_threads(config["threads"])
    keep_freed_memory()
    device = torch.device(devices.device())
    saved = tune.get_checkpoint()
    files = None
    if saved is not None:
        with saved.as_directory() as folder:
            files = {name: Path(folder, name).read_bytes() for name in (STATE, PAST)}
    with RunMetrics({**config, "study": "pbt", "stage": "pbt"}) as metrics:
        for report, state in epochs(config, files, device):
            metrics.report(report)
            with tempfile.TemporaryDirectory(prefix="bbqrec-member-") as folder:
                for name, data in state.items():
                    Path(folder, name).write_bytes(data)
                tune.report(report, checkpoint=tune.Checkpoint.from_directory(folder))


def epochs(
    config: Mapping[str, Any], files: Mapping[str, bytes] | None, device: torch.device
) -> Iterator[tuple[dict[str, Any], dict[str, bytes]]]:
    """The report of each epoch and the checkpoint after it.

    `config` has the member's number, the run that all members start from as `run`, the `values` that apply to this
    member from now on, the `store` with its quantizer and the `folder` of the data set. `files` is the checkpoint to go
    on from, of whichever member. A loss that is not finite ends the training, but not the member: it reports DIVERGED
    until its place is taken, as the others would wait for it forever.
    """
    run = with_overrides(run_from_json(config["run"]), dict(config["values"]))
    store = Store(config["store"], writable=False)
    dataset = dataset_of(config["folder"], run.fingerprint, store.url)
    codes = None if run.quantizer is None else load_codes(run, store)
    trainer = RecommenderTrainer(run.recommender, dataset, codes, run.seed, device)
    past: dict[str, Any] = {"epoch": 0, "member": config["member"], "diverged": None}
    if files is not None:
        past = json.loads(files[PAST])
        trainer.unpack(files[STATE])  # the optimiser's state, but not its rates, which are those of `run`
    while past["epoch"] < run.recommender.epochs:
        weights_of = past["member"] if past["member"] != config["member"] else None
        metrics: dict[str, float] = {}
        if past["diverged"] is None:
            try:
                metrics = trainer.train_epoch()
            except FloatingPointError as error:
                past["diverged"] = str(error)
        trainer.best = {}  # a member is its last epoch; what it once was need not be kept
        past = {"epoch": past["epoch"] + 1, "member": config["member"], "diverged": past["diverged"]}
        report = {
            **metrics,
            **config["values"],
            "stage": "pbt",
            "epoch": past["epoch"],
            "epochs": run.recommender.epochs,
            "score": DIVERGED if past["diverged"] is not None else metrics[SCORE],
            "diverged": past["diverged"] or "",
            "member": config["member"],
            "weights_of": -1 if weights_of is None else weights_of,
        }
        yield report, {STATE: trainer.pack(), PAST: json.dumps(past).encode()}
