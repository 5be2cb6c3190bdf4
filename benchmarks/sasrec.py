"""SASRec's training and full ranking against RecBole's: h 64, 2 layers, histories of 20, full cross-entropy."""

from collections.abc import Callable, Iterator

import numpy as np

from bbqrec.data import batches
from bbqrec.examples import evaluation_examples
from bbqrec.methods import run_config
from bbqrec.recommender_training import RecommenderTrainer
from bbqrec.training import epoch_generator
from benchmarks.inputs import DEVICE, Inputs
from benchmarks.measure import Row, alternate, row, timed
from benchmarks.peer import Peer

REQUIREMENTS = ("recbole==1.2.1", "numpy<2", "pandas<2.2")
STEPS = 8


def recbole(inputs: Inputs, rounds: int) -> Iterator[Row]:
    """Targets per second of training steps, and users per second of a ranking over all items.

    RecBole trains on every prefix by itself; SASRec as published, and ours, predict at every position of one pass.
    """
    trainers = {precision: _trainer(inputs, precision) for precision in ("float32", "bfloat16")}
    config = trainers["float32"].config
    sizes = ("max_history", "batch_size", "d_model", "layers", "heads", "dropout", "learning_rate")
    arrays = {f"config/{name}": np.asarray(getattr(config, name)) for name in sizes}
    arrays |= {"offsets": inputs.dataset.offsets, "items": inputs.dataset.items}
    with Peer("recbole_sasrec", REQUIREMENTS, arrays) as peer:
        ours = {f"ours, {precision}": timed(_steps(trainer)) for precision, trainer in trainers.items()}
        rates = alternate({**ours, "RecBole": peer.turn(do="train", steps=STEPS)}, rounds)
        for name in ours:
            yield row("SASRec training", "examples", rates, name, "RecBole", at_least=1.5)
        users = evaluation_examples(inputs.dataset, "valid", config.max_history)

        def ranked() -> float:
            return len(trainers["float32"].task.ranks(users, judging=True))

        rates = alternate({"ours": timed(ranked), "RecBole": peer.turn(do="evaluate")}, rounds)
        yield row("SASRec full ranking", "users", rates, "ours", "RecBole", at_least=1.5)


def _trainer(inputs: Inputs, precision: str) -> RecommenderTrainer:
    sizes = {"d_model": 64, "layers": 2, "heads": 2, "batch_size": 256, "dropout": 0.5, "precision": precision}
    overrides = {f"recommender.{name}": value for name, value in sizes.items()}
    config = run_config("sasrec", inputs.dataset, 0, "paper", overrides).recommender
    return RecommenderTrainer(config, inputs.dataset, None, 0, DEVICE)


def _steps(trainer: RecommenderTrainer) -> Callable[[], float]:
    """The first batches of an epoch: of random lengths, as training takes them."""
    cut = batches(trainer.lengths, trainer.config.batch_size, epoch_generator(0, 1))[:STEPS]
    trainer.model.train()
    return lambda: sum(trainer.step(rows)[1] for rows in cut)
