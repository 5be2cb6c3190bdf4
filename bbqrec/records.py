"""What a run writes about itself: its log over all attempts, and the row of scores, costs and provenance."""

import json
import time
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

QUANTIZER_COSTS = (
    "seconds",
    "wall_seconds",
    "core_seconds",
    "gpu_seconds",
    "epochs",
    "parameters",
    "peak_memory_bytes",
    "peak_gpu_memory_bytes",
)
"""Of stage 1, as a run's row repeats them; rows of older versions lack some."""


class RunLog:
    """What a run accumulates over its attempts: metrics of every epoch, costs, when it began, which code ran on
    how many workers.

    `seconds` are those of work (epochs and judging), `wall_seconds` go from an attempt's begin to its last checkpoint,
    of the last attempt to its row: reading inputs, compiling and checkpoints included. What an attempt did after its
    last checkpoint is in neither, since it left nothing. `core_seconds` are work x threads on a CPU, `gpu_seconds` work
    x GPUs held, shares of a GPU counted as such. The state of the source is read when an attempt begins: the checkout
    may change while it runs.
    """

    def __init__(self, device: torch.device, gpus: float, source: dict[str, Any]) -> None:
        self.started, self.metrics, self.sources = origin.now(), list[dict[str, Any]](), [source]
        self.seconds = self.core_seconds = self.gpu_seconds = 0.0
        self.peak_memory_bytes = self.peak_gpu_memory_bytes = 0
        self._device, self._gpus = device, gpus
        self._begun, self._wall_before = time.perf_counter(), 0.0

    @classmethod
    def begin(cls, device: torch.device, given: Mapping[str, Any]) -> "RunLog":
        """Of a run that starts now in this process, which may have computed others before.

        `given` is what the caller knows of the provenance; of that, "gpus" is what each worker holds of one.
        """
        origin.restart_peak_memory(device)
        source = origin.source_state() | {"workers": distributed.world()}
        return cls(device, given.get("gpus") or 1.0, source)

    def work(self, seconds: float) -> None:
        """Adds seconds of work on this attempt's device."""
        self.seconds += seconds
        if self._device.type == "cuda":
            self.gpu_seconds += seconds * self._gpus * distributed.world()
        else:
            self.core_seconds += seconds * torch.get_num_threads() * distributed.world()

    def pack(self) -> bytes:
        """What the next attempt needs to know, as JSON."""
        kept = ("started", "metrics", "sources", "seconds", "core_seconds", "gpu_seconds")
        return to_bytes({name: getattr(self, name) for name in kept} | self._used())

    def resume(self, blob: bytes) -> None:
        """Go on from another attempt's log, perhaps an older version's, which counted less."""
        before = json.loads(blob)
        self.started, self.metrics = before["started"], before["metrics"]
        self.sources = before["sources"] + self.sources
        for name in ("seconds", "core_seconds", "gpu_seconds"):
            setattr(self, name, before.get(name, 0.0))
        self._wall_before = before.get("wall_seconds", before["seconds"])
        self.peak_memory_bytes = before.get("peak_memory_bytes", 0)
        self.peak_gpu_memory_bytes = before.get("peak_gpu_memory_bytes", 0)

    def costs(self) -> dict[str, float]:
        """Time so far, and the largest memory of any attempt."""
        counted = {"core_seconds": self.core_seconds, "gpu_seconds": self.gpu_seconds}
        return {"seconds": self.seconds, **counted, **self._used()}

    def _used(self) -> dict[str, float]:
        return {
            "wall_seconds": self._wall_before + time.perf_counter() - self._begun,
            "peak_memory_bytes": max(self.peak_memory_bytes, origin.peak_memory_bytes()),
            "peak_gpu_memory_bytes": max(self.peak_gpu_memory_bytes, origin.peak_gpu_memory_bytes(self._device)),
        }

    @property
    def provenance(self) -> dict[str, Any]:
        """Of the last attempt; `sources` says it of each that left a checkpoint, and of the last."""
        return {**self.sources[-1], "started": self.started, "attempts": len(self.sources), "sources": self.sources}

    def jsonl(self) -> bytes:
        return "".join(json.dumps(line) + "\n" for line in self.metrics).encode()


def quantizer_row(
    run: RunConfig,
    teacher: Mapping[str, Any] | None,
    trainer: QuantizerTrainer | LetterTrainer,
    codes: Codes,
    log: RunLog,
    device: torch.device,
    given: Mapping[str, Any],
) -> dict[str, Any]:
    """Codebook health of the last epoch, collisions of the raw codes, costs and provenance of stage 1.

    Its config is the run's without the recommender, which others that share the quantizer have differently. `teacher`
    is the row of the run's teacher, if it has one.
    """
    config = run.described()
    kinds = {"quantizer": config.pop("kinds")["quantizer"]}
    del config["recommender"]
    return {
        "key": run.quantizer_key,
        "teacher_key": None if run.teacher is None else run.teacher.recommender_key,
        "dataset": run.dataset,
        "fingerprint": run.fingerprint,
        "seed": run.seed,
        "config": config | {"kinds": kinds},
        "collisions": _collisions(codes.codes if codes.raw is None else codes.raw),
        "codebook": {name: value for name, value in log.metrics[-1].items() if name.startswith("codes/")},
        "costs": {
            **log.costs(),
            "epochs": trainer.epoch,
            "parameters": _parameters(trainer.model),
            **({} if teacher is None else {"teacher_seconds": teacher["costs"]["recommender_seconds"]}),
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
    known = {} if first is None else first["costs"]
    quantizer = {f"quantizer_{name}": known[name] for name in QUANTIZER_COSTS if name in known}
    quantizer |= {name: known[name] for name in ("teacher_seconds",) if name in known}
    own = log.costs()
    times = {f"recommender_{name}": own.pop(name) for name in [*own] if name.endswith("seconds")}
    return {
        "run_key": run.recommender_key,
        "quantizer_key": run.quantizer_key,
        "teacher_key": None if run.teacher is None else run.teacher.recommender_key,
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
            **times,
            "recommender_epochs": trainer.epoch,
            "best_epoch": trainer.best_epoch,
            "parameters": _parameters(trainer.model),
            **own,
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
