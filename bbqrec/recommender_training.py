"""The training loop of stage 2: next-item codes, selection and early stopping by validation NDCG@10."""

import time

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from bbqrec.checkpoint import pack, unpack
from bbqrec.config import RecommenderConfig
from bbqrec.data import batches
from bbqrec.decoding import DeviceTrie
from bbqrec.evaluation import rank_users
from bbqrec.examples import Examples, evaluation_examples, popularity, training_examples
from bbqrec.metrics import scores
from bbqrec.precision import products_in, resolved
from bbqrec.recommender import Recommender
from bbqrec.schema import Codes, Dataset
from bbqrec.semantic_ids import build_trie, disambiguated, flat
from bbqrec.training import Averages, epoch_generator, learning_rate, require_finite
from bbqrec.trie_likelihood import TrieLikelihood

SELECTION = "ndcg@10"


def semantic_ids(codes: Codes, config: RecommenderConfig, dataset: Dataset) -> Int[np.ndarray, "I L M"]:
    """The IDs that the recommender generates: the quantizer's codes in the configured layout."""
    ids = flat(codes.codes) if config.layout == "flat" else codes.codes
    return disambiguated(ids, popularity(dataset)) if config.disambiguate else ids


def build_recommender(config: RecommenderConfig, codes: Codes, dataset: Dataset, seed: int) -> Recommender:
    """The untrained model; variant E starts its code embeddings from the codebooks."""
    generator = epoch_generator(seed, 0)
    ids = torch.from_numpy(semantic_ids(codes, config, dataset).astype(np.int64))
    size = max(codes.codebooks.shape[2], int(ids.max()) + 1)  # a disambiguation level may need more numbers
    model = Recommender(config, ids, torch.from_numpy(codes.vectors), size)
    if config.inherit_codebook:
        books = torch.from_numpy(codes.codebooks)
        model.embedding.inherit(books.flatten(0, 1)[:, None] if config.layout == "flat" else books, generator)
    return model


class RecommenderTrainer:
    """Stage 2: teacher-forced training, a validation pass per epoch, the best weights kept aside."""

    def __init__(
        self, config: RecommenderConfig, dataset: Dataset, codes: Codes, seed: int, device: torch.device
    ) -> None:
        self.config, self.seed, self.device, self.dataset = config, seed, device, dataset
        self.epoch, self.best_epoch, self.best_score = 0, 0, -1.0
        self.model = build_recommender(config, codes, dataset, seed).to(device)
        self.precision = resolved(config.precision, device)
        self.best: dict[str, Tensor] = {}
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay, fused=True
        )
        ids = semantic_ids(codes, config, dataset)
        self.trie = DeviceTrie.of(build_trie(ids, popularity(dataset)), device)
        self.likelihood = TrieLikelihood(self.trie) if config.objective == "children" else None
        self.examples = training_examples(dataset, config)
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
        generator = epoch_generator(self.seed, self.epoch + 1)
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
        found = scores(rank_users(self.model, self.trie, self.validation, self.config.validation_beam))
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
        batch = self.examples.batch(rows, self.device)
        with products_in(self.precision, self.device):
            loss = (
                self.model.loss(batch, self.config.label_smoothing)
                if self.likelihood is None
                else self.likelihood(self.model, batch)
            )
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        return loss.detach(), int((batch.visible > 0).sum())

    def judge(self, split: str) -> Int[np.ndarray, "U"]:
        """Every user's rank by the selected checkpoint. The test split is read here and nowhere else."""
        self.model.load_state_dict(self.best)
        return rank_users(
            self.model, self.trie, evaluation_examples(self.dataset, split, self.config.max_history), self.config.beam
        )

    def pack(self) -> bytes:
        meta = {"epoch": self.epoch, "best_epoch": self.best_epoch, "best_score": self.best_score}
        return pack({"model": self.model, "optimizer": self.optimizer}, meta, self.best)

    def unpack(self, blob: bytes) -> None:
        meta, best = unpack(blob, {"model": self.model, "optimizer": self.optimizer})
        self.epoch, self.best_epoch, self.best_score = meta["epoch"], meta["best_epoch"], meta["best_score"]
        self.best = {name: value.to(self.device) for name, value in best.items()}
