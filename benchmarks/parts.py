"""Where an epoch's time goes: the CPU time of every operator of one epoch of each stage, by what it is for.

python -m benchmarks.parts --dataset data/toys --profile small
"""

import sys
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import tyro
from rich import box
from rich.console import Console
from rich.table import Table
from torch.profiler import ProfilerActivity, profile

from bbqrec.data import batches, load_dataset
from bbqrec.errors import InputError
from bbqrec.methods import run_config
from bbqrec.native import keep_freed_memory
from bbqrec.quantizer_training import QuantizerTrainer
from bbqrec.recommender_training import RecommenderTrainer
from bbqrec.schema import Dataset
from bbqrec.training import epoch_generator

CPU = torch.device("cpu")
STEPS_AT_ONCE = 16
"""Steps whose events the profiler holds at a time."""
PARTS: Mapping[str, tuple[str, ...]] = {
    "matrix products": ("mm", "addmm", "bmm", "baddbmm", "_addmm_activation"),
    "attention's softmax, fused attention": ("_softmax", "_scaled_dot_product"),
    "similarity mix (Eq. 17)": ("_Native", "_ByQuery"),
    "softmax over items or codes, losses": ("_log_softmax", "nll_loss", "mse", "logsumexp"),
    "rows of tables: gather, scatter": ("index", "gather", "scatter", "embedding", "masked_s", "_index", "take"),
    "dropout": ("native_dropout", "bernoulli", "rand"),
    "norms": ("native_layer_norm", "_fused_rms_norm", "native_batch_norm", "rms_norm"),
    "optimiser and clipping": ("_fused", "_foreach", "linalg_vector_norm", "lerp", "addc"),
    "copies, casts, concatenation": ("copy_", "cat", "clone", "fill_", "zero", "_to"),
    "nearest codes": ("argmin", "min", "cdist", "topk", "bincount"),
    "element-wise and sums": ("",),
}
"""By the beginning of an operator's name in PyTorch; the first that fits counts."""
REST = "autograd's bookkeeping and the rest"


@dataclass(frozen=True, kw_only=True)
class Parts:
    """Profile one epoch of each stage of a method, one thread.

    Example: python -m benchmarks.parts --dataset data/toys --method bbqrec --profile small
    """

    dataset: Path
    """Folder written by `bbqrec prepare`."""
    method: str = "bbqrec"
    """One of `bbqrec methods`."""
    profile: str = "small"
    """Sizes: paper, small or tiny."""
    steps: int = 0
    """Steps of the epoch to profile, drawn at random; 0 takes all."""
    set: tuple[str, ...] = ()
    """Fields to override, for instance recommender.precision=float32."""

    def run(self) -> None:
        torch.set_num_threads(1)
        keep_freed_memory()
        dataset = load_dataset(self.dataset)
        overrides = dict(pair.split("=", 1) for pair in self.set)
        run = run_config(self.method, dataset, 0, self.profile, overrides)
        codes = None
        if run.quantizer is not None:
            first = QuantizerTrainer(run.quantizer, dataset, 0, CPU)
            first.model.train()
            first.start_codebook(epoch_generator(0, 1))
            self._show("stage 1", first, run.quantizer.batch_users, lambda rows: first.step(rows, 1.0, True))
            codes = first.model.codes(dataset.num_items)
        self._second(RecommenderTrainer(run.recommender, dataset, codes, 0, CPU), dataset)

    def _second(self, trainer: RecommenderTrainer, dataset: Dataset) -> None:
        trainer.model.train()
        self._show(f"stage 2 ({trainer.precision})", trainer, trainer.config.batch_size, trainer.step)
        begun = time.process_time()
        trainer.task.ranks(trainer.validation, judging=False)
        print(
            f"validation after it: {time.process_time() - begun:.1f} CPU s of {len(trainer.validation.history)} users"
        )

    def _show(
        self,
        name: str,
        trainer: QuantizerTrainer | RecommenderTrainer,
        size: int,
        step: Callable[[np.ndarray], object],
    ) -> None:
        cut = batches(trainer.lengths, size, epoch_generator(0, 1))
        cut = cut[: self.steps or len(cut)]
        plain, parts = _measured(cut, step)
        whole = len(batches(trainer.lengths, size, None))
        table = Table(title=f"{self.method}, {self.profile}, {name}: {len(cut)} of {whole} steps", box=box.MARKDOWN)
        for column in ("part", "share", "CPU s an epoch"):
            table.add_column(column, justify="left" if column == "part" else "right")
        profiled = sum(parts.values())
        for part, seconds in sorted(parts.items(), key=lambda item: -item[1]):
            share = seconds / profiled
            table.add_row(part, f"{share:.0%}", f"{share * plain / len(cut) * whole:.1f}")
        table.add_row("all", "100%", f"{plain / len(cut) * whole:.1f}")
        Console(width=140).print(table)


def _measured(cut: list[np.ndarray], step: Callable[[np.ndarray], object]) -> tuple[float, dict[str, float]]:
    """CPU seconds of the steps without a profiler, and with one the self time of every part."""
    step(cut[0])
    begun = time.process_time()
    for rows in cut:
        step(rows)
    plain = time.process_time() - begun
    parts: dict[str, float] = defaultdict(float)
    for start in range(0, len(cut), STEPS_AT_ONCE):
        with profile(activities=[ProfilerActivity.CPU]) as seen:
            for rows in cut[start : start + STEPS_AT_ONCE]:
                step(rows)
        for event in seen.key_averages():
            parts[_part(event.key)] += event.self_cpu_time_total / 1e6
    return plain, dict(parts)


def _part(operator: str) -> str:
    name = operator.removeprefix("aten::")
    if name == operator and not name.startswith(PARTS["similarity mix (Eq. 17)"]):
        return REST
    return next(part for part, beginnings in PARTS.items() if name.startswith(beginnings))


def main() -> int:
    """Bad input ends in one line on stderr and exit status 2."""
    try:
        tyro.cli(Parts).run()
    except InputError as error:
        print("error:", " ".join(str(error).split()), file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
