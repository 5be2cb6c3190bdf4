"""One stage of one run against a store: return at once if published, resume, report every epoch, publish.

Of several workers on a recommender (`bbqrec.distributed`) each calls `run_recommender`; worker 0 reads and writes.
"""

import time
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from safetensors.torch import save

from bbqrec import distributed
from bbqrec.artefacts import QUANTIZER, RECOMMENDER, TRIAL, load_codes, load_item_vectors, npy, publish
from bbqrec.baselines.letter import LetterQuantizerConfig
from bbqrec.config import QuantizerConfig, TrainingConfig, to_json
from bbqrec.data import require_targets
from bbqrec.errors import Diverged, InputError
from bbqrec.letter_training import LetterTrainer
from bbqrec.quantizer_training import QuantizerTrainer
from bbqrec.recommender_training import RecommenderTrainer
from bbqrec.records import RunLog, quantizer_row, recommender_row, to_bytes
from bbqrec.run import RunConfig
from bbqrec.schema import Dataset, EpochReport
from bbqrec.store import Store
from bbqrec.training import Trainer

Files = dict[str, bytes]


def run_all(
    run: RunConfig,
    dataset: Dataset,
    store: Store,
    *,
    attempt: str,
    provenance: Mapping[str, Any] | None = None,
    device: str = "auto",
) -> Iterator[EpochReport]:
    """Whatever the store lacks of a run: its teacher, its quantizer, its recommender."""
    options: dict[str, Any] = {"attempt": attempt, "provenance": provenance, "device": device}
    if run.teacher is not None:
        yield from run_all(run.teacher, dataset, store, **options)
    if run.quantizer is not None:
        yield from run_quantizer(run, dataset, store, **options)
    yield from run_recommender(run, dataset, store, **options)


def run_quantizer(
    run: RunConfig,
    dataset: Dataset,
    store: Store,
    *,
    attempt: str,
    provenance: Mapping[str, Any] | None = None,
    device: str = "auto",
) -> Iterator[EpochReport]:
    """Stage 1. Publishes codes, vectors, codebooks (npy), model.safetensors, config.json, metrics.jsonl, row.json.

    Raises InputError if the run has a teacher and its item vectors are not in the store. Takes one worker.
    """
    key = run.quantizer_key
    distributed.require_one_worker("a quantizer")
    if run.quantizer is None or key is None:
        raise ValueError(f"{run.recommender.kind} has no quantizer")
    if store.has(QUANTIZER, key):
        return
    _check_data(run, dataset)
    place = resolve_device(device)
    log = RunLog.begin(place, provenance or {})
    trainer = _quantizer_trainer(run, dataset, store, place)
    teacher = None if run.teacher is None else store.read_json(RECOMMENDER, run.teacher.recommender_key, "row.json")
    yield from _epochs(QUANTIZER, QUANTIZER, key, trainer.config, trainer, store, attempt, log)
    codes = trainer.model.codes(dataset.num_items)
    row = quantizer_row(run, teacher, trainer, codes, log, place, provenance or {})
    publish(
        store,
        QUANTIZER,
        key,
        attempt,
        log,
        {
            "codes.npy": npy(codes.codes.astype(np.int32)),
            "vectors.npy": npy(codes.vectors),
            "codebooks.npy": npy(codes.codebooks),
            "model.safetensors": save({k: v.cpu().contiguous() for k, v in trainer.model.state_dict().items()}),
            "config.json": to_bytes(to_json(run.quantizer) | {"components": list(codes.components)}),
            "row.json": to_bytes(row),
        },
    )


def run_recommender(
    run: RunConfig,
    dataset: Dataset,
    store: Store,
    *,
    attempt: str,
    provenance: Mapping[str, Any] | None = None,
    device: str = "auto",
    trial: bool = False,
) -> Iterator[EpochReport]:
    """Stage 2. Publishes ranks_valid.npy, ranks_test.npy, model.safetensors, config.json, metrics.jsonl, row.json.

    A model over items also leaves item_vectors.npy. Raises InputError if the run has a quantizer and it is not in the
    store. A `trial` of tuning ends with its last epoch: nothing is judged, the test split is not read. It publishes
    config.json, metrics.jsonl and a row.json without scores, under the same key but a kind of its own.
    """
    key, kind = run.recommender_key, TRIAL if trial else RECOMMENDER
    if distributed.agreed(b"" if store.has(kind, key) else None) is not None:
        return
    _check_data(run, dataset)
    place = resolve_device(device)
    log = RunLog.begin(place, provenance or {})
    codes = None if run.quantizer is None else load_codes(run, store)
    trainer = RecommenderTrainer(run.recommender, dataset, codes, run.seed, place)
    yield from _epochs(kind, RECOMMENDER, key, run.recommender, trainer, store, attempt, log)
    judged = time.perf_counter()
    ranks = {} if trial else {split: trainer.judge(split) for split in ("valid", "test")}
    log.work(time.perf_counter() - judged)
    if distributed.rank() > 0:
        return
    first = None if run.quantizer_key is None else store.read_json(QUANTIZER, run.quantizer_key, "row.json")
    row = recommender_row(run, first, trainer, ranks, log, place, provenance or {})
    files = {"config.json": to_bytes(run.described()), "row.json": to_bytes(row)}
    publish(store, kind, key, attempt, log, files | ({} if trial else _judged(trainer, ranks)))


def _judged(trainer: RecommenderTrainer, ranks: Mapping[str, np.ndarray]) -> Files:
    """The ranks, and the selected checkpoint that they are of."""
    vectors = trainer.task.item_vectors()
    return {
        **{f"ranks_{split}.npy": npy(found) for split, found in ranks.items()},
        **({} if vectors is None else {"item_vectors.npy": npy(vectors)}),
        "model.safetensors": save({k: v.cpu().contiguous() for k, v in trainer.best.items()}),
    }


def resolve_device(name: str) -> torch.device:
    """ "auto" is the GPU if there is one."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name == "cuda" and not torch.cuda.is_available():
        raise InputError("no CUDA device is available", "use device cpu or auto")
    return torch.device(name)


def _quantizer_trainer(
    run: RunConfig, dataset: Dataset, store: Store, place: torch.device
) -> QuantizerTrainer | LetterTrainer:
    """The loop of the run's kind of quantizer."""
    if isinstance(run.quantizer, LetterQuantizerConfig):
        if run.teacher is None:
            raise ValueError(f"{run.quantizer.kind} has no teacher")
        vectors = load_item_vectors(run.teacher, store)
        return LetterTrainer(run.quantizer, dataset, vectors, run.seed, place)
    assert isinstance(run.quantizer, QuantizerConfig)
    return QuantizerTrainer(run.quantizer, dataset, run.seed, place)


def _epochs(
    kind: str,
    stage: str,
    key: str,
    config: QuantizerConfig | LetterQuantizerConfig | TrainingConfig,
    trainer: Trainer,
    store: Store,
    attempt: str,
    log: RunLog,
) -> Iterator[EpochReport]:
    """Train to the end from the newest checkpoint. A checkpoint is saved, as `kind`, before its epoch is reported.

    Raises Diverged for a loss that is not finite: the config asks for steps too large.
    """
    saved = store.load_progress(kind, key) if distributed.rank() == 0 else None
    if saved is not None:
        log.resume(saved.files["log.json"])
    state = distributed.agreed(None if saved is None else saved.files["state.safetensors"])
    if state is not None:
        trainer.unpack(state)
    while not trainer.finished():
        begun = time.perf_counter()
        try:
            metrics = trainer.train_epoch()
        except FloatingPointError as error:
            rates = {name: rate for name, rate in to_json(config).items() if name.endswith("learning_rate")}
            found = ", ".join(f"{name}={rate:g}" for name, rate in rates.items())
            remedy = f"lower {' or '.join(f'{stage}.{name}' for name in rates)}"
            raise Diverged(f"{stage} diverged with {found}: {error}", remedy) from error
        log.work(time.perf_counter() - begun)
        log.metrics.append({"epoch": trainer.epoch, **metrics})
        if distributed.rank() == 0:
            files: Files = {"state.safetensors": trainer.pack(), "log.json": log.pack()}
            store.save_progress(kind, key, attempt, trainer.epoch, files)
        yield EpochReport(stage=stage, epoch=trainer.epoch, epochs=config.epochs, metrics=metrics)


def _check_data(run: RunConfig, dataset: Dataset) -> None:
    """Raises InputError for another data set than the run's, and for one that leaves nothing to train on."""
    if run.fingerprint != dataset.fingerprint:
        raise InputError(
            f"data set {dataset.name} is {dataset.fingerprint[:12]}, the run was planned for {run.fingerprint[:12]}",
            "give the folder that the run was planned with",
        )
    require_targets(dataset)
