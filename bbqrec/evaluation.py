"""Every user's rank under leave-one-out and full ranking."""

from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from bbqrec import distributed
from bbqrec.data import Batch, batches
from bbqrec.decoding import DeviceTrie, target_ranks
from bbqrec.examples import Examples
from bbqrec.generation import generate, scored_nodes
from bbqrec.recommender import Recommender

BEAMS_IN_FLIGHT = 8192
"""Users times beam of one decoding batch: bounds the memory, never the beam."""
SCORES_IN_FLIGHT = 2**26
"""Users times children of the root of one decoding batch: the same bound for large catalogues."""
ITEM_SCORES_IN_FLIGHT = {"cpu": 2**21, "cuda": 2**26}
"""Users times items of one batch of a model that scores every item; on a CPU few enough to stay in its cache."""


@runtime_checkable
class ItemScorer(Protocol):
    """A model with a number for every item."""

    training: bool

    def scores(self, history: Int[Tensor, "B T"]) -> Float[Tensor, "B I"]: ...
    def train(self, mode: bool = True) -> Any: ...
    def eval(self) -> Any: ...


def rank_users(
    model: Recommender, trie: DeviceTrie, examples: Examples, beam: int, beams_in_flight: int = BEAMS_IN_FLIGHT
) -> Int[np.ndarray, "R"]:
    """Rank of each row's target over all items, from 1, in the rows' order; `UNRANKED` where no beam holds it."""

    vectors = scored_nodes(model, trie)

    def rank(batch: Batch) -> Int[Tensor, "B"]:
        return target_ranks(generate(model, trie, batch.history, beam, vectors), trie, batch.target[:, 0])

    together = min(beams_in_flight // beam, SCORES_IN_FLIGHT // len(trie.codes[0]))
    return _ranked(model, rank, examples, together, trie.items.device)


def rank_users_by_score(
    model: ItemScorer, priority: Int[Tensor, "I"], examples: Examples, scores_in_flight: int | None = None
) -> Int[np.ndarray, "R"]:
    """The same for a model whose `scores(history)` has a number for every item; see `score_ranks`."""

    def rank(batch: Batch) -> Int[Tensor, "B"]:
        return score_ranks(model.scores(batch.history), batch.target[:, 0], priority)

    together = (scores_in_flight or ITEM_SCORES_IN_FLIGHT[priority.device.type]) // len(priority)
    return _ranked(model, rank, examples, together, priority.device)


def score_ranks(scores: Float[Tensor, "B I"], target: Int[Tensor, "B"], priority: Int[Tensor, "I"]) -> Int[Tensor, "B"]:
    """Each row's rank of its target: items by falling score, equal scores by `priority` (0 comes first).

    Raises FloatingPointError for a score that is not finite: every comparison with it would be false.
    """
    if not bool(torch.isfinite(torch.stack(torch.aminmax(scores))).all()):
        raise FloatingPointError("an item's score is not finite")
    own = scores.gather(1, target[:, None])
    ranks = (scores > own).sum(1) + 1
    tied = ((scores >= own).sum(1) > ranks).nonzero()[:, 0]  # rows in which another item has the target's score
    if len(tied):
        before = (scores[tied] == own[tied]) & (priority < priority[target[tied]][:, None])
        ranks[tied] += before.sum(1)
    return ranks


@torch.no_grad()
def _ranked(
    model: Recommender | ItemScorer,
    rank: Callable[[Batch], Tensor],
    examples: Examples,
    together: int,
    device: torch.device,
) -> Int[np.ndarray, "R"]:
    """`together` rows at a time, in batches of similar lengths. Several workers share the rows out."""
    was_training = model.training
    model.eval()
    ranks, fault = np.zeros(len(examples.history), dtype=np.int32), None
    mine = distributed.share(np.arange(len(ranks)))
    try:
        for part in batches(examples.lengths[mine], max(1, together), None):
            rows = mine[part]
            ranks[rows] = rank(examples.batch(rows, device)).cpu().numpy()
    except FloatingPointError as error:
        fault = error
    model.train(was_training)
    return distributed.joined(ranks, fault)
