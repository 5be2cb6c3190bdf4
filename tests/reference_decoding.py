"""Slow references of decoding: every item is scored by itself, and lists are sorted in plain Python."""

import math

import numpy as np
from reference import log_softmax


def item_score(next_scores, codes) -> float:
    """Eq. 1: sum over the levels of the sum of the components' log-probabilities.

    `next_scores(prefix)` gives the (M, N) log-probabilities that follow a prefix, a tuple of tuples of codes.
    """
    score, prefix = 0.0, ()
    for level in codes:
        logs = next_scores(prefix)
        for m, code in enumerate(level):
            score += logs[m][code]
        prefix = (*prefix, tuple(int(c) for c in level))
    return score


def among_children(next_scores, codes, popularity, weights, node_vectors="codes"):
    """log-probability of a child behind its prefix: its share among the children that exist (objective `children`).

    A child's score has `weights[level]` times its log-popularity added. With node_vectors="ids" `next_scores` gives the
    logits (L, M, N) of all levels' heads, and a child's score is the mean over the IDs below it of the sum of their
    codes' logits, from the child's level on.
    """
    names = [tuple(tuple(int(c) for c in level) for level in item) for item in codes]

    def score(prefix, child):
        logs = next_scores(prefix)

        def unnormalised(other):
            below = sum(p for p, n in zip(popularity, names, strict=True) if n[: len(prefix) + 1] == (*prefix, other))
            if node_vectors == "codes":
                own = sum(logs[m][c] for m, c in enumerate(other))
            else:
                ids = {name for name in names if name[: len(prefix) + 1] == (*prefix, other)}
                own = sum(_from(logs, name, len(prefix)) for name in ids) / len(ids)
            return own + weights[len(prefix)] * math.log(1 + below)

        siblings = {name[len(prefix)] for name in names if name[: len(prefix)] == prefix}
        return unnormalised(child) - math.log(sum(math.exp(unnormalised(s)) for s in siblings))

    return score


def _from(logits, name, first) -> float:
    """The sum of the logits of an ID's codes, from a level on."""
    return sum(logits[level][m][c] for level in range(first, len(name)) for m, c in enumerate(name[level]))


def likelihoods(next_scores, codes, popularity, weights, node_vectors="codes") -> list[float]:
    """log P of every item's ID under objective `children`."""
    score = among_children(next_scores, codes, popularity, weights, node_vectors)
    names = [tuple(tuple(int(c) for c in level) for level in item) for item in codes]
    return [sum(score(name[:level], name[level]) for level in range(len(name))) for name in names]


def exhaustive_list(next_scores, codes, popularity) -> list[tuple[int, float]]:
    """All items by score; items of one ID by training popularity, then by index."""
    by_id = {}
    for item in range(len(codes)):
        name = tuple(tuple(int(c) for c in level) for level in codes[item])
        if name not in by_id:
            by_id[name] = (item_score(next_scores, codes[item]), [])
        by_id[name][1].append(item)
    ranked = []
    for score, items in sorted(by_id.values(), key=lambda entry: -entry[0]):
        ranked += [(item, score) for item in sorted(items, key=lambda i: (-popularity[i], i))]
    return ranked


def beam_list(next_scores, codes, popularity, beam: int) -> list[tuple[int, float]]:
    """Beam search over the prefixes that exist, by filtering the catalogue anew for every prefix."""
    names = [tuple(tuple(int(c) for c in level) for level in item) for item in codes]
    beams = [((), 0.0)]
    for level in range(len(names[0])):
        longer = {}
        for prefix, score in beams:
            logs = next_scores(prefix)
            for name in names:
                if name[:level] == prefix:
                    longer[name[: level + 1]] = score + sum(logs[m][c] for m, c in enumerate(name[level]))
        beams = sorted(longer.items(), key=lambda entry: -entry[1])[:beam]
    ranked = []
    for name, score in beams:
        items = [i for i in range(len(names)) if names[i] == name]
        ranked += [(item, score) for item in sorted(items, key=lambda i: (-popularity[i], i))]
    return ranked


def rank_of(ranked, item: int) -> int | None:
    for place, (other, _) in enumerate(ranked, start=1):
        if other == item:
            return place
    return None


class RandomScores:
    """A fixed next-scores function: random log-probabilities of each user's every prefix, the same at every call."""

    def __init__(self, seed: int, components: int, codes: int) -> None:
        self.seed, self.components, self.codes = seed, components, codes

    def __call__(self, user: int, prefix) -> np.ndarray:
        flat = [code for level in prefix for code in level]
        generator = np.random.default_rng([self.seed, user, len(flat), *flat])
        logits = generator.normal(0, 2, (self.components, self.codes))
        return np.array([log_softmax(list(row)) for row in logits])
