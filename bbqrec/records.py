"""What a run writes about itself: its log over all attempts, and the row of scores, costs and provenance."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
import torch

from bbqrec import distributed
from bbqrec import provenance as origin
from bbqrec.config import RecommenderConfig
from bbqrec.letter_training import LetterTrainer
from bbqrec.metrics import scores
from bbqrec.quantizer_training import QuantizerTrainer
from bbqrec.recommender_training import SELECTION, RecommenderTrainer
from bbqrec.run import RunConfig
from bbqrec.schema import Codes
from bbqrec.semantic_ids import collisions

QUANTIZER_COSTS = ("seconds", "epochs", "parameters")
"""Of stage 1, as a run's row repeats them."""


class RunLog:
    """What a run accumulates over its attempts: metrics of every epoch, seconds of work, when it began, which code ran
    on how many workers.

    The state of the source is read when an attempt begins: the checkout may change while it runs.
    """

    def __init__(
        self, started: str, seconds: float, metrics: list[dict[str, Any]], sources: list[dict[str, Any]]
    ) -> None:
        self.started, self.seconds, self.metrics, self.sources = started, seconds, metrics, sources

    @classmethod
    def begin(cls) -> "RunLog":
        """Of a run that starts now in this process, which may have computed others before."""
        origin.restart_peak_memory()
        return cls(origin.now(), 0.0, [], [origin.source_state() | {"workers": distributed.world()}])

    def pack(self) -> bytes:
        return to_bytes(self.__dict__)

    def resume(self, blob: bytes) -> None:
        """Go on from another attempt's log."""
        this = self.sources
        self.__dict__.update(json.loads(blob))
        self.sources += this

    @property
    def provenance(self) -> dict[str, Any]:
        """Of the last attempt; `sources` says it of each."""
        return {**self.sources[-1], "started": self.started, "attempts": len(self.sources), "sources": self.sources}

    def jsonl(self) -> bytes:
        return "".join(json.dumps(line) + "\n" for line in self.metrics).encode()


def quantizer_row(
    key: str,
    trainer: QuantizerTrainer | LetterTrainer,
    codes: Codes,
    log: RunLog,
    device: torch.device,
    given: Mapping[str, Any],
) -> dict[str, Any]:
    """Codebook health of the last epoch, collisions of the raw codes, costs and provenance of stage 1."""
    return {
        "key": key,
        "collisions": _collisions(codes.codes if codes.raw is None else codes.raw),
        "codebook": {name: value for name, value in log.metrics[-1].items() if name.startswith("codes/")},
        "costs": {
            "seconds": log.seconds,
            "epochs": trainer.epoch,
            "parameters": _parameters(trainer.model),
            "peak_memory_bytes": origin.peak_memory_bytes(),
        },
        "provenance": _provenance(device, log, given),
    }


def recommender_row(
    run: RunConfig,
    first: Mapping[str, Any] | None,
    trainer: RecommenderTrainer,
    ranks: Mapping[str, np.ndarray],
    log: RunLog,
    device: torch.device,
    given: Mapping[str, Any],
) -> dict[str, Any]:
    """The row of a finished run; `first` is its quantizer's row, `given` what the caller knows of the provenance.

    `selected_by` is the per-epoch validation score that chose the checkpoint; `scores` judge that checkpoint with the
    run's beam and all users. `collisions` counts the raw codes, `id_collisions` the IDs that are generated.
    `quantizer_provenance` may name an older commit than `provenance`: stage 1 is made once and shared by runs. What a
    model over items does not have (beam, codes, quantizer) its row does not have either.
    """
    config, ids = run.recommender, trainer.task.ids
    beam = {"beam": config.validation_beam} if isinstance(config, RecommenderConfig) else {}
    quantizer = {} if first is None else {f"quantizer_{name}": first["costs"][name] for name in QUANTIZER_COSTS}
    return {
        "run_key": run.recommender_key,
        "quantizer_key": run.quantizer_key,
        "dataset": run.dataset,
        "fingerprint": run.fingerprint,
        "seed": run.seed,
        "config": run.described(),
        "scores": {split: scores(found) for split, found in ranks.items()},
        "selected_by": {
            SELECTION: trainer.best_score,
            "users": len(trainer.validation.history),
            **beam,
        },
        "collisions": {} if first is None else first["collisions"],
        "id_collisions": {} if ids is None else _collisions(ids),
        "codebook": {} if first is None else first["codebook"],
        "costs": {
            **quantizer,
            "recommender_seconds": log.seconds,
            "recommender_epochs": trainer.epoch,
            "best_epoch": trainer.best_epoch,
            "parameters": _parameters(trainer.model),
            "peak_memory_bytes": origin.peak_memory_bytes(),
        },
        "provenance": _provenance(device, log, {**given, "precision": trainer.precision}),
        "quantizer_provenance": {} if first is None else first["provenance"],
    }


def _provenance(device: torch.device, log: RunLog, given: Mapping[str, Any]) -> dict[str, Any]:
    return origin.provenance(device, {**log.provenance, **given})


def _collisions(ids: np.ndarray) -> dict[str, int]:
    found = collisions(ids)
    return asdict(found) | {"distinct": found.distinct}


def _parameters(model: torch.nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def to_bytes(value: Any) -> bytes:
    """Readable JSON."""
    return (json.dumps(value, indent=1) + "\n").encode()
