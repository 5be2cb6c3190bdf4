"""Peak memory of a run at the paper's sizes, beyond what the imports take, in a process of its own."""

import multiprocessing
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from bbqrec.evaluation import rank_users
from bbqrec.examples import Examples, evaluation_examples
from bbqrec.methods import run_config
from bbqrec.provenance import peak_memory_bytes
from bbqrec.quantizer_training import QuantizerTrainer
from benchmarks.inputs import DEVICE, Inputs
from benchmarks.measure import Limit

GIB = 2**30


def paper(inputs: Inputs, rounds: int) -> Iterator[Limit]:
    """The largest batches of both stages and of decoding; an epoch holds no more at a time."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        before, after = pool.apply(_largest_batches, (inputs.folder,))
    yield Limit(name="Peak memory of a paper-profile run", unit="GiB", value=(after - before) / GIB, at_most=2.0)


def _largest_batches(folder: Path) -> tuple[int, int]:
    """Peak bytes of this process before and after; the data set counts as the run's."""
    torch.set_num_threads(1)
    before = peak_memory_bytes()
    inputs = Inputs(folder)
    dataset = inputs.dataset
    config = run_config("bbqrec", dataset, 0, "paper").quantizer
    quantizer = QuantizerTrainer(config, dataset, 0, DEVICE)
    quantizer.start_codebook(torch.Generator().manual_seed(0))
    for rows in np.array_split(_longest(quantizer.lengths, 2 * config.batch_users), 2):
        quantizer.step(rows, 1.0, True)
    quantizer.model.codes(dataset.num_items)
    trainer = inputs.trainer("bbqrec")
    for rows in np.array_split(_longest(trainer.lengths, 2 * trainer.config.batch_size), 2):
        trainer.step(rows)
    test = evaluation_examples(dataset, "test", trainer.config.max_history)
    rows = _longest(test.lengths, 512)
    few = Examples(history=test.history[rows], target=test.target[rows], visible=test.visible[rows])
    rank_users(trainer.model, trainer.trie, few, trainer.config.beam)
    return before, peak_memory_bytes()


def _longest(lengths: np.ndarray, count: int) -> np.ndarray:
    return np.argsort(-lengths, kind="stable")[:count]
