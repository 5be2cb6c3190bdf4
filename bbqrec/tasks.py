"""What stage 2 trains and judges: a model with its training examples, its loss and its ranking of users."""

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from bbqrec.baselines import bert4rec, gru4rec, missrec, nova_bert, sasrec, vqrec
from bbqrec.config import RecommenderConfig, TrainingConfig
from bbqrec.data import Batch
from bbqrec.decoding import DeviceTrie, item_lists
from bbqrec.evaluation import rank_users, rank_users_by_score
from bbqrec.examples import Examples, popularity, training_examples
from bbqrec.generation import generate
from bbqrec.recommender import Recommender
from bbqrec.schema import Codes, Dataset
from bbqrec.semantic_ids import build_trie, disambiguated, flat
from bbqrec.training import epoch_generator
from bbqrec.trie_likelihood import TrieLikelihood


class Task(Protocol):
    """A task's loss is the mean over the batch's targets, whose number it returns beside it."""

    model: nn.Module
    examples: Examples
    ids: Int[np.ndarray, "I L M"] | None
    """The IDs that are generated; None for a model that scores items."""

    def loss(self, batch: Batch) -> tuple[Float[Tensor, ""], int]: ...
    def ranks(self, examples: Examples, judging: bool) -> Int[np.ndarray, "R"]: ...
    def item_vectors(self) -> Float[np.ndarray, "I W"] | None: ...
    def best(self, history: Int[Tensor, "1 T"], k: int) -> list[tuple[int, float]]: ...


class GenerativeTask:
    """BBQRec, its variants, TIGER and LETTER: codes are generated level by level, constrained to those that exist."""

    def __init__(
        self, config: RecommenderConfig, dataset: Dataset, codes: Codes, seed: int, device: torch.device
    ) -> None:
        self.config = config
        self.model = build_recommender(config, codes, dataset, seed).to(device)
        self.ids = semantic_ids(codes, config, dataset)
        self.trie = DeviceTrie.of(build_trie(self.ids, popularity(dataset)), device)
        self.likelihood = TrieLikelihood(self.trie) if config.objective == "children" else None
        self.examples = training_examples(dataset, config.history, config.max_history)

    def loss(self, batch: Batch) -> tuple[Float[Tensor, ""], int]:
        loss = (
            self.model.loss(batch, self.config.label_smoothing)
            if self.likelihood is None
            else self.likelihood(self.model, batch)
        )
        return loss, int((batch.visible > 0).sum())

    def ranks(self, examples: Examples, judging: bool) -> Int[np.ndarray, "R"]:
        """By a beam search, narrower while training than when the selected checkpoint is judged."""
        return rank_users(self.model, self.trie, examples, self.config.beam if judging else self.config.validation_beam)

    def item_vectors(self) -> None:
        """A generator has none."""

    def best(self, history: Int[Tensor, "1 T"], k: int) -> list[tuple[int, float]]:
        """The k best items and their log-probabilities, by the configured beam or, if that is wider, one of k."""
        return item_lists(generate(self.model.eval(), self.trie, history, max(self.config.beam, k)), self.trie, k)[0]


class ItemRankingTask:
    """A model over items: every item has a score. Each names the form of its training examples."""

    ids = None

    def __init__(self, config: TrainingConfig, dataset: Dataset, seed: int, device: torch.device) -> None:
        epoch_generator(seed, 0)
        self.model = ITEM_MODELS[type(config)](config, dataset).to(device)
        self.examples = training_examples(dataset, self.model.form, config.max_history)
        self.priority = item_priority(dataset).to(device)

    def loss(self, batch: Batch) -> tuple[Float[Tensor, ""], int]:
        return self.model.loss(batch)

    def ranks(self, examples: Examples, judging: bool) -> Int[np.ndarray, "R"]:
        return rank_users_by_score(self.model, self.priority, examples)

    def item_vectors(self) -> Float[np.ndarray, "I W"]:
        with torch.no_grad():
            return self.model.item_vectors().cpu().numpy()

    @torch.no_grad()
    def best(self, history: Int[Tensor, "1 T"], k: int) -> list[tuple[int, float]]:
        """The k best items and the logarithm of their share of the softmax over all items."""
        scores = torch.log_softmax(self.model.eval().scores(history)[0], dim=0)
        order = np.lexsort((self.priority.cpu(), -scores.cpu()))[:k]
        return [(int(item), float(scores[item])) for item in order]


ITEM_MODELS: Mapping[type[TrainingConfig], Any] = {
    gru4rec.GRU4RecConfig: gru4rec.GRU4Rec,
    bert4rec.BERT4RecConfig: bert4rec.BERT4Rec,
    sasrec.SASRecConfig: sasrec.SASRec,
    nova_bert.NovaBERTConfig: nova_bert.NovaBERT,
    missrec.MISSRecConfig: missrec.MISSRec,
    vqrec.VQRecConfig: vqrec.VQRec,
}
"""The model of each config: made from the config and the data set; has `form`, `loss`, `scores`, `item_vectors`."""


def build_task(
    config: TrainingConfig, dataset: Dataset, codes: Codes | None, seed: int, device: torch.device
) -> GenerativeTask | ItemRankingTask:
    """The untrained task of a config; only a generator reads `codes`."""
    if not isinstance(config, RecommenderConfig):
        return ItemRankingTask(config, dataset, seed, device)
    if codes is None:
        raise ValueError(f"{config.kind} generates codes, but there are none")
    return GenerativeTask(config, dataset, codes, seed, device)


def semantic_ids(codes: Codes, config: RecommenderConfig, dataset: Dataset) -> Int[np.ndarray, "I L M"]:
    """The IDs that the recommender generates: the quantizer's codes in the configured layout."""
    ids = flat(codes.codes) if config.layout == "flat" else codes.codes
    return disambiguated(ids, popularity(dataset)) if config.disambiguate else ids


def build_recommender(config: RecommenderConfig, codes: Codes, dataset: Dataset, seed: int) -> Recommender:
    """The untrained generator; variant E starts its code embeddings from the codebooks."""
    generator = epoch_generator(seed, 0)
    ids = torch.from_numpy(semantic_ids(codes, config, dataset).astype(np.int64))
    size = max(codes.codebooks.shape[2], int(ids.max()) + 1)  # a disambiguation level may need more numbers
    model = Recommender(config, ids, torch.from_numpy(codes.vectors), size)
    if config.inherit_codebook:
        books = torch.from_numpy(codes.codebooks)
        model.embedding.inherit(books.flatten(0, 1)[:, None] if config.layout == "flat" else books, generator)
    return model


def item_priority(dataset: Dataset) -> Int[Tensor, "I"]:
    """Place of each item among equal scores: more training interactions first, then the lower index."""
    order = np.argsort(-popularity(dataset), kind="stable")
    priority = np.empty(len(order), dtype=np.int64)
    priority[order] = np.arange(len(order))
    return torch.from_numpy(priority)
