"""TIGER and LETTER as generators: they learn thirty users by heart (models over items: test_item_models)."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from test_item_models import last_training_targets, thirty_users

from bbqrec.methods import run_config
from bbqrec.recommender_training import RecommenderTrainer
from bbqrec.schema import Codes


def codes_of(items: int) -> Codes:
    """Three levels of seven codes, so that every item has an ID of its own."""
    generator = np.random.default_rng(8)
    chosen = generator.choice(7**3, items, replace=False)
    split = np.stack([chosen // 49, chosen // 7 % 7, chosen % 7], axis=1)[:, :, None]
    books = generator.normal(size=(3, 1, 7, 4)).astype(np.float32)
    vectors = books[np.arange(3), 0, split[:, :, 0]].sum(1)
    return Codes(components=("text",), codes=split, vectors=vectors, codebooks=books)


@pytest.mark.slow
@pytest.mark.parametrize(("objective", "nodes"), [("codes", "codes"), ("children", "codes"), ("children", "ids")])
@pytest.mark.parametrize("method", ["tiger", "letter"])
def test_learns_thirty_users_by_heart(method, objective, nodes):
    dataset = thirty_users()
    config = replace(
        run_config(method, dataset, 3, "tiny").recommender,
        objective=objective, node_vectors=nodes, dropout=0.0, weight_decay=0.0, learning_rate=3e-3, batch_size=15,
        epochs=60, patience=60, validation_users=1, validation_beam=10, beam=60, warmup_steps=5, precision="float32",
    )  # fmt: skip
    loop = RecommenderTrainer(config, dataset, codes_of(dataset.num_items), 3, torch.device("cpu"))
    while not loop.finished():
        loop.train_epoch()
    ranks = loop.task.ranks(last_training_targets(dataset, config.max_history), judging=True)
    assert (ranks == 1).mean() > 0.95
