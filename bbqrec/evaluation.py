"""Every user's rank under leave-one-out and full ranking."""

import numpy as np
import torch
from jaxtyping import Int

from bbqrec.data import batches
from bbqrec.decoding import DeviceTrie, target_ranks
from bbqrec.examples import Examples
from bbqrec.generation import generate
from bbqrec.recommender import Recommender

BEAMS_IN_FLIGHT = 8192
"""Users times beam of one decoding batch: bounds the memory, never the beam."""
SCORES_IN_FLIGHT = 2**26
"""Users times children of the root of one decoding batch: the same bound for large catalogues."""


@torch.no_grad()
def rank_users(
    model: Recommender, trie: DeviceTrie, examples: Examples, beam: int, beams_in_flight: int = BEAMS_IN_FLIGHT
) -> Int[np.ndarray, "R"]:
    """Rank of each row's target over all items, from 1, in the rows' order; `UNRANKED` where no beam holds it."""
    was_training = model.training
    model.eval()
    ranks = np.empty(len(examples.history), dtype=np.int32)
    together = min(beams_in_flight // beam, SCORES_IN_FLIGHT // len(trie.codes[0]))
    for rows in batches(examples.lengths, max(1, together), None):
        batch = examples.batch(rows, trie.items.device)
        beams = generate(model, trie, batch.history, beam)
        ranks[rows] = target_ranks(beams, trie, batch.target[:, 0]).cpu().numpy()
    model.train(was_training)
    return ranks
