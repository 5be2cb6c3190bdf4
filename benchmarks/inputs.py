"""What all rows measure on: a prepared data set, codes of residual k-means, and the sizes that public code uses.

The speed of a step does not depend on how well the codes were learned, but that of decoding depends on the shape of
their trie; residual k-means of the text features gives TIGER's, untrained.
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int

from bbqrec.codebook import ResidualCodebook
from bbqrec.config import RecommenderConfig
from bbqrec.data import batches, load_dataset
from bbqrec.examples import Examples
from bbqrec.methods import run_config
from bbqrec.recommender_training import RecommenderTrainer
from bbqrec.schema import Codes, Dataset

DEVICE = torch.device("cpu")
DECODED_TOGETHER = 16
"""Users of a batch when few are decoded: as alike in length as the hundreds that training takes of many thousands."""


@dataclass(frozen=True)
class Inputs:
    """A data set with text and image features, and its folder."""

    folder: Path

    @cached_property
    def dataset(self) -> Dataset:
        return load_dataset(self.folder)

    def config(self, method: str, **changes: object) -> RecommenderConfig:
        """Stage 2 of a method in profile `paper` (d 128, 4 + 4 layers, 6 x 64, ff 1024), in float32 unless told."""
        changes = {"precision": "float32", **changes}
        overrides = {f"recommender.{name}": value for name, value in changes.items()}
        return run_config(method, self.dataset, 0, "paper", overrides).recommender

    def trainer(self, method: str, **changes: object) -> RecommenderTrainer:
        codes = self.text_codes if method == "tiger" else self.all_codes
        return RecommenderTrainer(self.config(method, **changes), self.dataset, codes, 0, DEVICE)

    @cached_property
    def text_codes(self) -> Codes:
        return self._codes(("text",))

    @cached_property
    def all_codes(self) -> Codes:
        return self._codes(("id", "text", "image"))

    def _codes(self, components: tuple[str, ...], width: int = 128) -> Codes:
        """Three levels of 256 codes: k-means of the features, randomly projected; IDs are random vectors."""
        generator = torch.Generator().manual_seed(0)
        latents = []
        for name in components:
            items = self.dataset.num_items
            raw = torch.randn(items, width, generator=generator)
            if name != "id":
                values = torch.from_numpy(self.dataset.features[name].values).float()
                raw = values @ torch.randn(values.shape[1], width, generator=generator)
            latents.append((raw - raw.mean(0)) / raw.std(0))
        z = torch.stack(latents, 1)  # (I, M, D)
        book = ResidualCodebook(3, 256, width, len(components), shared=False).eval()
        book.initialise(z, 5, generator)
        with torch.no_grad():
            found = book(z)
        return Codes(
            components=components,
            codes=found.codes.numpy(),
            vectors=found.q.flatten(1).numpy(),
            codebooks=book.per_component().numpy(),
        )


def drawn(rows: int, size: int, seed: int) -> Int[np.ndarray, "_"]:
    """`size` of `rows` row numbers at random, in random order."""
    return np.random.default_rng(seed).choice(rows, min(size, rows), replace=False)


def sorted_batches(examples: Examples, rows: Int[np.ndarray, "_"], size: int) -> list[Int[np.ndarray, "_"]]:
    """The rows in the batches of similar lengths that training makes."""
    return [rows[cut] for cut in batches(examples.lengths[rows], size, None)]
