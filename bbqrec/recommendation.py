"""A finished run put to use: the items it recommends to a user."""

from typing import Any

import torch
from safetensors.torch import load

from bbqrec.artefacts import RECOMMENDER, load_codes
from bbqrec.errors import InputError
from bbqrec.methods import run_from_json
from bbqrec.run import RunConfig
from bbqrec.schema import Dataset
from bbqrec.store import Store
from bbqrec.tasks import GenerativeTask, ItemRankingTask, build_task


def recommend(store: Store, run_key: str, dataset: Dataset, user_id: str, k: int) -> list[tuple[str, str, float]]:
    """The k best (item ID, title, log-probability) for a user's next item, given all items that the user has had.

    The beam is the run's, or k if that is wider. Raises InputError for an unknown run or user, another data set, or a
    run of another version of the program, whose model this one may not be able to read.
    """
    run = _same_version(store.read_json(RECOMMENDER, run_key, "config.json"), run_key)
    if run.fingerprint != dataset.fingerprint:
        raise InputError(
            f"run {run_key} was trained on {run.dataset} {run.fingerprint[:12]}, not on {dataset.fingerprint[:12]}",
            "give the data set folder that the run was trained on",
        )
    found = (dataset.user_ids == user_id).nonzero()[0]
    if not len(found):
        raise InputError(
            f"user {user_id!r} is not in data set {dataset.name}",
            f"use one of its user IDs, such as {dataset.user_ids[0]}",
        )
    task = load_task(run, store, dataset, torch.device("cpu"))
    start, end = dataset.offsets[found[0]], dataset.offsets[found[0] + 1]
    history = torch.from_numpy(dataset.items[start:end][-run.recommender.max_history :].astype("int64"))[None]
    return [(str(dataset.item_ids[item]), str(dataset.titles[item]), score) for item, score in task.best(history, k)]


def load_task(run: RunConfig, store: Store, dataset: Dataset, device: torch.device) -> GenerativeTask | ItemRankingTask:
    """A finished run with its selected weights. Raises InputError if the store lacks it or its quantizer."""
    codes = None if run.quantizer is None else load_codes(run, store)
    task = build_task(run.recommender, dataset, codes, run.seed, device)
    task.model.load_state_dict(load(store.read_bytes(RECOMMENDER, run.recommender_key, "model.safetensors")))
    return task


def _same_version(config: dict[str, Any], run_key: str) -> RunConfig:
    other = InputError(f"run {run_key} was made by another version of bbqrec", "train it again")
    try:
        run = run_from_json(config)
    except InputError as error:  # a field that is no more
        raise other from error
    if run.recommender_key != run_key:
        raise other
    return run
