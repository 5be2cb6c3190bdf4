"""Peak memory beyond what the imports take, each in a process of its own: a run at the paper's sizes, a long table."""

import multiprocessing
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from bbqrec.datasets.core import index_columns
from bbqrec.datasets.interactions import read_columns
from bbqrec.evaluation import rank_users
from bbqrec.examples import Examples, evaluation_examples
from bbqrec.methods import run_config
from bbqrec.native import keep_freed_memory
from bbqrec.precision import resolved
from bbqrec.provenance import peak_memory_bytes, restart_peak_memory
from bbqrec.quantizer_training import QuantizerTrainer
from benchmarks.inputs import DEVICE, Inputs
from benchmarks.measure import Limit

GIB = 2**30
TABLE = pa.schema([("user_id", pa.string()), ("item_id", pa.string()), ("timestamp", pa.int64())])
IDS = (("user", 10**6), ("item", 10**5))


def paper(inputs: Inputs, rounds: int) -> Iterator[Limit]:
    """The largest batches of both stages and of decoding; an epoch holds no more at a time."""
    for precision in dict.fromkeys((resolved("auto", DEVICE), "float32")):
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            before, after = pool.apply(_largest_batches, (inputs.folder, precision))
        name = f"Peak memory of a paper-profile run, {precision}"
        yield Limit(name=name, unit="GiB", value=(after - before) / GIB, at_most=2.0)


def table(inputs: Inputs, rounds: int, rows: int = 10**7) -> Iterator[Limit]:
    """Reading and ordering an interactions table whose IDs alone are larger than what is held of it."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "interactions.parquet")
        generator = np.random.default_rng(0)
        with pq.ParquetWriter(path, TABLE) as writer:
            for _ in range(10):
                drawn = (generator.integers(0, n, rows // 10) for _, n in IDS)
                users, items = (np.char.mod(f"{kind}-%032d", d) for (kind, _), d in zip(IDS, drawn, strict=True))
                times = generator.integers(0, 10**9, rows // 10)
                writer.write_table(pa.table([users, items, times], schema=TABLE))
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            before, after = pool.apply(_table_read, (path,))
    size = rows * 2 * 37 / GIB
    note = f"its IDs are {size:.2f} GiB of text"
    yield Limit(
        name=f"Preparing {rows:,} interactions", unit="GiB", value=(after - before) / GIB, at_most=1.0, note=note
    )


def _table_read(path: Path) -> tuple[int, int]:
    restart_peak_memory()
    before = peak_memory_bytes()
    index_columns(read_columns(path, "user_id", "item_id", "timestamp"))
    return before, peak_memory_bytes()


def _largest_batches(folder: Path, precision: str) -> tuple[int, int]:
    """Peak bytes of this process before and after; the data set counts as the run's."""
    torch.set_num_threads(1)
    keep_freed_memory()
    restart_peak_memory()
    before = peak_memory_bytes()
    inputs = Inputs(folder)
    dataset = inputs.dataset
    config = run_config("bbqrec", dataset, 0, "paper").quantizer
    quantizer = QuantizerTrainer(config, dataset, 0, DEVICE)
    quantizer.start_codebook(torch.Generator().manual_seed(0))
    for rows in np.array_split(_longest(quantizer.lengths, 2 * config.batch_users), 2):
        quantizer.step(rows, 1.0, True)
    quantizer.model.codes(dataset.num_items)
    trainer = inputs.trainer("bbqrec", precision=precision)
    for rows in np.array_split(_longest(trainer.lengths, 2 * trainer.config.batch_size), 2):
        trainer.step(rows)
    test = evaluation_examples(dataset, "test", trainer.config.max_history)
    rows = _longest(test.lengths, 512)
    few = Examples(history=test.history[rows], target=test.target[rows], visible=test.visible[rows])
    rank_users(trainer.model, trainer.task.trie, few, trainer.config.beam)
    return before, peak_memory_bytes()


def _longest(lengths: np.ndarray, count: int) -> np.ndarray:
    return np.argsort(-lengths, kind="stable")[:count]
