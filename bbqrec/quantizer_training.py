"""The training loop of stage 1 (Sec. 4.1.4)."""

import time

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from bbqrec import codebook_upkeep
from bbqrec.checkpoint import pack, unpack
from bbqrec.codebook import Quantized
from bbqrec.config import QuantizerConfig
from bbqrec.data import batches, training_windows
from bbqrec.losses import total
from bbqrec.mutual_information import log_likelihood, saturation
from bbqrec.quantizer import Quantizer, QuantizerOutput
from bbqrec.schema import PAD, Dataset
from bbqrec.training import Averages, epoch_generator, learning_rate, require_finite


class QuantizerTrainer:
    """Stage 1: batches of users' training windows, Eq. 13, with q_theta fitted between the steps."""

    def __init__(self, config: QuantizerConfig, dataset: Dataset, seed: int, device: torch.device) -> None:
        self.config, self.seed, self.device, self.epoch = config, seed, device, 0
        self.num_items = dataset.num_items
        epoch_generator(seed, 0)
        self.model = Quantizer(config, dataset.num_items, dataset.features).to(device)
        theta = list(self.model.variational.parameters())
        own = {id(p) for p in theta}
        self.weights = [p for p in self.model.parameters() if id(p) not in own]
        self.optimizer = torch.optim.AdamW(self.weights, lr=config.learning_rate, weight_decay=config.weight_decay)
        self.club_optimizer = torch.optim.Adam(theta, lr=config.club_learning_rate) if theta else None
        self.windows = training_windows(dataset, config.max_history)
        self.lengths = (self.windows.items != PAD).sum(1)

    def finished(self) -> bool:
        return self.epoch >= self.config.epochs

    def train_epoch(self) -> dict[str, float]:
        started = time.perf_counter()
        generator = epoch_generator(self.seed, self.epoch + 1)
        self.model.train()
        quantize = self.epoch >= self.config.unquantized_epochs
        if self.epoch == self.config.unquantized_epochs:
            self.start_codebook(generator)
        cut = batches(self.lengths, self.config.batch_users, generator)
        gamma = self.config.gamma * min((self.epoch + 1) / max(self.config.gamma_warmup_epochs, 1), 1.0)
        averages = Averages()
        last: Quantized | None = None
        for step, rows in enumerate(cut):
            done = (self.epoch * len(cut) + step, len(cut), self.config.epochs * len(cut))
            rate = learning_rate(self.config.learning_rate, *done, "cosine")
            for group in self.optimizer.param_groups:
                group["lr"] = rate
            output, terms = self.step(rows, gamma, quantize)
            require_finite(terms, self.epoch + 1, step)
            averages.add(terms, float(len(rows)))
            last = output.quantized
        health = {} if last is None else self._upkeep(last, generator)
        self.epoch += 1
        return averages.means() | health | {"gamma": gamma, "seconds": time.perf_counter() - started}

    def _upkeep(self, last: Quantized, generator: torch.Generator) -> dict[str, float]:
        """The codebook's health, and fresh codes for those that the epoch did not use."""
        config, codebook = self.config, self.model.codebook
        health = codebook_upkeep.health(codebook, config.components, self.model.codes(self.num_items).codes)
        wanted = config.restart_dead_codes and self.epoch + 1 < config.epochs
        replaced = codebook_upkeep.restart(codebook, self.optimizer, last, generator, wanted)
        return health | {"restarted_codes": float(replaced)}

    def start_codebook(self, generator: torch.Generator) -> None:
        """k-means of the latents of items that occur in training windows."""
        seen = np.unique(self.windows.items[self.windows.items != PAD])
        codebook_upkeep.start(self.model.codebook, self.model.encode, seen, self.config.kmeans_iterations, generator)

    def step(
        self, rows: Int[np.ndarray, "B"], gamma: float, quantize: bool
    ) -> tuple[QuantizerOutput, dict[str, Tensor]]:
        """One step of the optimiser, and q_theta's, on these rows of `windows`: what the batch left, and its terms."""
        longest = int(self.lengths[rows].max())
        windows = torch.from_numpy(self.windows.items[rows, :longest]).to(self.device)
        counted = torch.from_numpy(self.windows.counted[rows, : longest - 1]).to(self.device)
        output = self.model(windows, counted, quantize)
        loss = total(output.losses, self.config.beta, gamma)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.weights, 1.0)
        self.optimizer.step()
        terms = {f"loss/{name}": value.detach() for name, value in output.losses._asdict().items()}
        return output, {"loss/total": loss.detach()} | terms | self._fit_variational(output)

    def _fit_variational(self, output: QuantizerOutput) -> dict[str, Tensor]:
        """q_theta's likelihood steps on detached latents; reports the last likelihood and the saturation."""
        terms: dict[str, Tensor] = {}
        if self.club_optimizer is None:
            return terms
        pairs = {}
        for name, z_specific in output.z_specific.items():
            have = output.present[name]
            z = output.z[:, self.config.components.index(name)]
            pairs[name] = (z[have].detach(), z_specific[have].detach())
        for _ in range(self.config.club_steps):
            fits = {n: self.model.variational[n](z) for n, (z, _) in pairs.items() if len(z)}
            likelihood = {n: log_likelihood(mean, spread, pairs[n][1]) for n, (mean, spread) in fits.items()}
            self.club_optimizer.zero_grad(set_to_none=True)
            if likelihood:
                (-sum(likelihood.values(), torch.zeros(()))).backward()
                self.club_optimizer.step()
            terms = {f"club/{n}_likelihood": value.detach() for n, value in likelihood.items()}
            terms |= {f"club/{n}_saturation": saturation(spread.detach()) for n, (_, spread) in fits.items()}
        return terms

    def _parts(self) -> dict[str, torch.nn.Module | torch.optim.Optimizer]:
        parts: dict[str, torch.nn.Module | torch.optim.Optimizer] = {"model": self.model, "optimizer": self.optimizer}
        return parts | ({"club_optimizer": self.club_optimizer} if self.club_optimizer else {})

    def pack(self) -> bytes:
        return pack(self._parts(), {"epoch": self.epoch})

    def unpack(self, blob: bytes) -> None:
        self.epoch = unpack(blob, self._parts())[0]["epoch"]
