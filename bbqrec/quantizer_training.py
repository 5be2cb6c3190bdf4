"""The training loop of stage 1 (Sec. 4.1.4)."""

import time

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from bbqrec.checkpoint import pack, unpack
from bbqrec.codebook import Quantized, perplexity
from bbqrec.config import QuantizerConfig
from bbqrec.data import batches, training_windows
from bbqrec.losses import total
from bbqrec.mutual_information import log_likelihood, saturation
from bbqrec.quantizer import Quantizer, QuantizerOutput
from bbqrec.schema import PAD, Dataset
from bbqrec.semantic_ids import collisions
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
        health = {} if last is None else self._health() | {"restarted_codes": float(self._restart(last, generator))}
        self.epoch += 1
        return averages.means() | health | {"gamma": gamma, "seconds": time.perf_counter() - started}

    def _restart(self, last: Quantized, generator: torch.Generator) -> int:
        """Codes that the epoch did not use start again from residuals of its last batch; the usage is forgotten.

        Not after the last epoch: a fresh code that nothing has been trained on would change the final codes.
        """
        if not self.config.restart_dead_codes or self.epoch + 1 >= self.config.epochs:
            self.model.codebook.usage.zero_()
            return 0
        replaced = self.model.codebook.restart(last.residuals.detach(), generator)
        self._forget(replaced)
        return sum(len(codes) for _, _, codes in replaced)

    def start_codebook(self, generator: torch.Generator) -> None:
        """k-means of the latents of at most 16,384 items that occur in training."""
        seen = np.unique(self.windows.items[self.windows.items != PAD])
        pick = torch.randperm(len(seen), generator=generator)[:16384].numpy()
        with torch.no_grad():
            z = self.model.encode(torch.from_numpy(seen[pick]).to(self.device))
        self.model.codebook.initialise(z, self.config.kmeans_iterations, generator)

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

    def _forget(self, replaced: list[tuple[int, int, Tensor]]) -> None:
        """A restarted code starts without the moments of the code it replaced."""
        state = self.optimizer.state.get(self.model.codebook.codebooks, {})
        for level, group, codes in replaced:
            for name in ("exp_avg", "exp_avg_sq"):
                if name in state:
                    state[name][level, group, codes] = 0.0

    def _health(self) -> dict[str, float]:
        """Codes in use and perplexity per level and component, and the collisions of the whole catalogue."""
        usage = self.model.codebook.usage
        spread, used = perplexity(usage), (usage > 0).sum(-1)
        health = {}
        for level in range(self.config.levels):
            for number, component in enumerate(self.config.components):
                health[f"codes/perplexity_{level}_{component}"] = float(spread[level, number])
                health[f"codes/used_{level}_{component}"] = float(used[level, number])
        count = collisions(self.model.codes(self.num_items).codes)
        return health | {"codes/colliding_items": float(count.colliding_items), "codes/excess": float(count.excess)}

    def _parts(self) -> dict[str, torch.nn.Module | torch.optim.Optimizer]:
        parts: dict[str, torch.nn.Module | torch.optim.Optimizer] = {"model": self.model, "optimizer": self.optimizer}
        return parts | ({"club_optimizer": self.club_optimizer} if self.club_optimizer else {})

    def pack(self) -> bytes:
        return pack(self._parts(), {"epoch": self.epoch})

    def unpack(self, blob: bytes) -> None:
        self.epoch = unpack(blob, self._parts())[0]["epoch"]
