"""The training loop of LETTER's stage 1: batches of items, with the clusters of the codes made anew every epoch."""

import time

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from bbqrec import codebook_upkeep
from bbqrec.baselines.letter import LetterQuantizer, LetterQuantizerConfig, total
from bbqrec.checkpoint import pack, unpack
from bbqrec.codebook import Quantized
from bbqrec.data import batches, training_part
from bbqrec.schema import Dataset
from bbqrec.training import Averages, epoch_generator, learning_rate, require_finite


class LetterTrainer:
    """Stage 1 of LETTER on the items that occur in training; `teacher` are the item vectors of its teacher."""

    def __init__(
        self,
        config: LetterQuantizerConfig,
        dataset: Dataset,
        teacher: Float[np.ndarray, "I E"],
        seed: int,
        device: torch.device,
    ) -> None:
        self.config, self.seed, self.device, self.epoch = config, seed, device, 0
        self.num_items = dataset.num_items
        epoch_generator(seed, 0)
        self.model = LetterQuantizer(config, dataset, torch.from_numpy(teacher)).to(device)
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
        )
        self.items = np.unique(training_part(dataset).items)

    def finished(self) -> bool:
        return self.epoch >= self.config.epochs

    def train_epoch(self) -> dict[str, float]:
        started = time.perf_counter()
        config, codebook = self.config, self.model.codebook
        generator = epoch_generator(self.seed, self.epoch + 1)
        self.model.train()
        if self.epoch == 0:
            codebook_upkeep.start(codebook, self.model.rq_vae.encode, self.items, config.kmeans_iterations, generator)
        self.model.cluster(generator)
        alike = np.ones(len(self.items), dtype=np.int64)  # lengths by which `batches` would sort
        cut = [rows for _ in range(config.passes) for rows in batches(alike, config.batch_items, generator)]
        averages = Averages()
        for step, rows in enumerate(cut):
            done = (self.epoch * len(cut) + step, len(cut), config.epochs * len(cut))
            rate = learning_rate(config.learning_rate, *done, "cosine")
            for group in self.optimizer.param_groups:
                group["lr"] = rate
            last, terms = self.step(rows)
            require_finite(terms, self.epoch + 1, step)
            averages.add(terms, float(len(rows)))
        health = codebook_upkeep.health(codebook, config.components, self.model.rq_vae.codes(self.num_items).codes)
        wanted = config.restart_dead_codes and self.epoch + 1 < config.epochs
        replaced = codebook_upkeep.restart(codebook, self.optimizer, last, generator, wanted)
        self.epoch += 1
        spent = {"restarted_codes": float(replaced), "seconds": time.perf_counter() - started}
        return averages.means() | health | spent

    def step(self, rows: Int[np.ndarray, "R"]) -> tuple[Quantized, dict[str, Tensor]]:
        """One step of the optimiser on these rows of `items`: how they were quantized, and the terms before it."""
        losses, quantized = self.model(torch.from_numpy(self.items[rows]).to(self.device))
        loss = total(losses, self.config.collaborative, self.config.diversity)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        terms = {f"loss/{name}": value.detach() for name, value in losses._asdict().items()}
        return quantized, {"loss/total": loss.detach()} | terms

    def pack(self) -> bytes:
        return pack({"model": self.model, "optimizer": self.optimizer}, {"epoch": self.epoch})

    def unpack(self, blob: bytes) -> None:
        self.epoch = unpack(blob, {"model": self.model, "optimizer": self.optimizer})[0]["epoch"]
