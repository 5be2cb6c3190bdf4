"""The training loop of stage 2, whatever the model: selection and early stopping by validation NDCG@10."""

import time

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from bbqrec import distributed
from bbqrec.checkpoint import pack, unpack
from bbqrec.config import TrainingConfig
from bbqrec.data import batches
from bbqrec.examples import Examples, evaluation_examples
from bbqrec.metrics import scores
from bbqrec.precision import products_in, resolved
from bbqrec.schema import Codes, Dataset
from bbqrec.tasks import build_task
from bbqrec.training import Averages, epoch_generator, learning_rate, require_finite

SELECTION = "ndcg@10"


class RecommenderTrainer:
    """Stage 2 of any method: train, a validation pass per epoch, the best weights kept aside.

    Workers of one run (`bbqrec.distributed`) each hold a trainer; all cut the same batches and take their shares.
    """

    def __init__(
        self, config: TrainingConfig, dataset: Dataset, codes: Codes | None, seed: int, device: torch.device
    ) -> None:
        self.config, self.seed, self.device, self.dataset = config, seed, device, dataset
        self.epoch, self.best_epoch, self.best_score = 0, 0, -1.0
        self.task = build_task(config, dataset, codes, seed, device)
        self.model = self.task.model
        if not config.shareable:
            distributed.require_one_worker(f"{config.kind} with this loss")
        if distributed.world() > 1:
            self.task.item_vectors()  # what a model computes on first use is shared like the rest
            distributed.same_start(self.model)
        chosen = distributed.agreed(resolved(config.precision, device).encode())
        self.precision = "" if chosen is None else chosen.decode()
        self.best: dict[str, Tensor] = {}
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay, fused=True
        )
        self.examples = self.task.examples
        self.lengths = self.examples.lengths
        self.validation = self._sample(evaluation_examples(dataset, "valid", config.max_history))

    def _sample(self, examples: Examples) -> Examples:
        """The users of the per-epoch validation: all, or the same `validation_users` at every epoch."""
        size = self.config.validation_users
        if size == 0 or size >= len(examples.history):
            return examples
        rows = np.sort(np.random.default_rng(self.seed).choice(len(examples.history), size, replace=False))
        return Examples(history=examples.history[rows], target=examples.target[rows], visible=examples.visible[rows])

    def finished(self) -> bool:
        return self.epoch >= self.config.epochs or self.epoch - self.best_epoch >= self.config.patience

    def train_epoch(self) -> dict[str, float]:
        started = time.perf_counter()
        generator = epoch_generator(self.seed, self.epoch + 1, distributed.rank())
        self.model.train()
        averages = Averages()
        cut = batches(self.lengths, self.config.batch_size, generator)
        for step, rows in enumerate(cut):
            done = (self.epoch * len(cut) + step, self.config.warmup_steps, self.config.epochs * len(cut))
            rate = learning_rate(self.config.learning_rate, *done, self.config.decay)
            for group in self.optimizer.param_groups:
                group["lr"] = rate
            loss, targets = self.step(rows)
            require_finite({"loss": loss}, self.epoch + 1, step)
            averages.add({"loss": loss}, targets)
        trained = time.perf_counter()
        found = scores(self.task.ranks(self.validation, judging=False))
        self.epoch += 1
        if found[SELECTION] > self.best_score:
            self.best_score, self.best_epoch = found[SELECTION], self.epoch
            self.best = {name: value.detach().clone() for name, value in self.model.state_dict().items()}
        return (
            averages.means()
            | {f"valid/{name}": value for name, value in found.items()}
            | {
                f"valid/best_{SELECTION}": self.best_score,
                "train_seconds": trained - started,
                "seconds": time.perf_counter() - started,
            }
        )

    def step(self, rows: Int[np.ndarray, "B"]) -> tuple[Float[Tensor, ""], int]:
        """One step of the optimiser on these rows of `examples`: the loss before it, and the number of targets."""
        self.optimizer.zero_grad(set_to_none=True)
        loss, targets = self._loss(distributed.share(rows))
        if distributed.world() > 1:
            loss, targets = distributed.combined(self.model.parameters(), loss, targets)
        else:
            assert loss is not None
            loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        return loss.detach(), targets

    def _loss(self, rows: Int[np.ndarray, "_"]) -> tuple[Float[Tensor, ""] | None, int]:
        """Mean loss over these rows' targets, and their number. None without rows: a batch may be smaller than the
        number of workers."""
        if not len(rows):
            return None, 0
        with products_in(self.precision, self.device):
            return self.task.loss(self.examples.batch(rows, self.device))

    def judge(self, split: str) -> Int[np.ndarray, "U"]:
        """Every user's rank by the selected checkpoint. The test split is read here and nowhere else."""
        self.model.load_state_dict(self.best)
        return self.task.ranks(evaluation_examples(self.dataset, split, self.config.max_history), judging=True)

    def pack(self) -> bytes:
        meta = {"epoch": self.epoch, "best_epoch": self.best_epoch, "best_score": self.best_score}
        return pack({"model": self.model, "optimizer": self.optimizer}, meta, self.best)

    def unpack(self, blob: bytes) -> None:
        meta, best = unpack(blob, {"model": self.model, "optimizer": self.optimizer})
        self.epoch, self.best_epoch, self.best_score = meta["epoch"], meta["best_epoch"], meta["best_score"]
        self.best = {name: value.to(self.device) for name, value in best.items()}
