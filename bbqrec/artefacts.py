"""What the stages publish and read of each other: files of a run in the store, as arrays and back."""

import io
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from jaxtyping import Float

from bbqrec.config import to_json
from bbqrec.errors import InputError
from bbqrec.records import RunLog
from bbqrec.run import RunConfig
from bbqrec.schema import Codes
from bbqrec.store import Store

QUANTIZER, RECOMMENDER, TRIAL = "quantizer", "recommender", "trial"
"""Kinds of artefacts."""


def load_codes(run: RunConfig, store: Store) -> Codes:
    """The published quantizer of a run. Raises InputError if it is missing, damaged or made by another config."""
    assert run.quantizer is not None and run.quantizer_key is not None
    remedy = "run `bbqrec train` or the study again: it computes what is missing"
    folder = store.get(QUANTIZER, run.quantizer_key)
    if folder is None:
        raise InputError(f"quantizer {run.quantizer_key} is not in store {store.url}", remedy)
    made_by = json.loads((folder / "config.json").read_text())
    if made_by != {"components": made_by.get("components")} | to_json(run.quantizer):
        raise InputError(
            f"quantizer {run.quantizer_key} was made by another config", "remove it from the store and rerun"
        )
    return Codes(
        components=tuple(made_by["components"]),
        codes=np.load(folder / "codes.npy", allow_pickle=False).astype(np.int64),
        vectors=np.load(folder / "vectors.npy", allow_pickle=False),
        codebooks=np.load(folder / "codebooks.npy", allow_pickle=False),
    )


def load_item_vectors(teacher: RunConfig, store: Store) -> Float[np.ndarray, "I E"]:
    """The item vectors of a published run. Raises InputError if they are missing or damaged."""
    vectors = store.read_bytes(RECOMMENDER, teacher.recommender_key, "item_vectors.npy")
    return np.load(io.BytesIO(vectors), allow_pickle=False)


def publish(store: Store, stage: str, key: str, attempt: str, log: RunLog, files: Mapping[str, bytes]) -> None:
    """Publishes the files of a stage and its log, and forgets its checkpoints."""
    with tempfile.TemporaryDirectory() as folder:
        for name, data in {**files, "metrics.jsonl": log.jsonl()}.items():
            Path(folder, name).write_bytes(data)
        store.publish(stage, key, folder, attempt)
    store.clear_progress(stage, key)


def npy(array: np.ndarray) -> bytes:
    """An array as the bytes of an .npy file."""
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()
