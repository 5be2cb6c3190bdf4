"""Slow float64 loops over the paper's equations, in the paper's order. They share no code with the product.

Arrays are numpy; an index in a formula is an index in a loop. Errata of the paper are corrected as NOTES.md says.
"""

import math
from collections import Counter

import numpy as np


def _log_gaussian(x, mean, log_variance) -> float:
    total = 0.0
    for d in range(len(x)):
        total += -0.5 * math.log(2 * math.pi) - 0.5 * log_variance[d]
        total += -((x[d] - mean[d]) ** 2) / (2 * math.exp(log_variance[d]))
    return total


def club(mean, log_variance, specific, per_width: bool) -> float:
    """Eq. 3 with all N_B^2 pairs; row i of `mean` and `log_variance` is q(. | z_i)."""
    count, width = specific.shape
    bound = 0.0
    for i in range(count):
        others = 0.0
        for j in range(count):
            others += _log_gaussian(specific[j], mean[i], log_variance[i]) / count
        bound += (_log_gaussian(specific[i], mean[i], log_variance[i]) - others) / count
    return bound / width if per_width else bound


def log_likelihood(mean, log_variance, specific) -> float:
    """Mean over the items and the width of log q(zs_i | z_i), with its constant."""
    count, width = specific.shape
    return sum(_log_gaussian(specific[i], mean[i], log_variance[i]) for i in range(count)) / (count * width)


def residual_quantization(z, books):
    """Eq. 5-7 for one vector z (D,) and its books (L, N, D): codes, residuals z^l, codewords c^l and q."""
    residual = [float(x) for x in z]
    codes, residuals, codewords = [], [], []
    for book in books:
        distances = [sum((residual[d] - c[d]) ** 2 for d in range(len(residual))) for c in book]
        best = distances.index(min(distances))
        codes.append(best)
        residuals.append(list(residual))
        codewords.append([float(x) for x in book[best]])
        residual = [residual[d] - book[best][d] for d in range(len(residual))]
    q = [sum(c[d] for c in codewords) for d in range(len(residual))]
    return np.array(codes), np.array(residuals), np.array(codewords), np.array(q)


def reconstruction(x, x_hat, present, per_width: bool) -> float:
    """Eq. 9, a summand of L_recon, over the items that have the modality."""
    values = []
    for i in range(len(x)):
        if present[i]:
            squares = sum((x[i][f] - x_hat[i][f]) ** 2 for f in range(len(x[i])))
            values.append(squares / len(x[i]) if per_width else squares)
    return sum(values) / len(values) if values else 0.0


def rq_loss(z, books, alpha: float, per_width: bool):
    """Eq. 9: sum over m of L_RQ^m, mean over items. z (R, M, D), books (L, M, N, D).

    Returns the value, its gradient with respect to z and to the books; sg[.] is a constant.
    """
    rows, components, width = z.shape
    scale = 1.0 / rows / (width if per_width else 1)
    value, by_z, by_books = 0.0, np.zeros(z.shape), np.zeros(books.shape)
    for r in range(rows):
        for m in range(components):
            codes, residuals, codewords, _ = residual_quantization(z[r, m], books[:, m])
            for level in range(len(books)):
                for d in range(width):
                    gap = residuals[level][d] - codewords[level][d]
                    value += scale * (gap**2 + alpha * gap**2)
                    by_books[level, m, codes[level], d] += scale * -2 * gap
                    by_z[r, m, d] += scale * alpha * 2 * gap
    return value, by_z, by_books


def _cosine(a, b) -> float:
    dot = sum(x * y for x, y in zip(a, b, strict=True))
    return dot / math.sqrt(sum(x * x for x in a)) / math.sqrt(sum(y * y for y in b))


def contrastive(states, positives, batch, vectors, tau: float) -> float:
    """Eq. 12: state p must find item positives[p]; its negatives are the other distinct items of `batch`."""
    total = 0.0
    for h, positive in zip(states, positives, strict=True):
        up = math.exp(_cosine(h, vectors[positive]) / tau)
        down = up
        for item in set(batch):
            if item != positive:
                down += math.exp(_cosine(h, vectors[item]) / tau)
        total += -math.log(up / down)
    return total / len(positives)


def total(recon, rq_vae, rec, mim, beta: float, gamma: float) -> float:
    """Eq. 13."""
    return recon + rq_vae + beta * rec + gamma * mim


def similarity_bucket(a, b, buckets: int) -> int:
    """Eq. 14-15: halves are rounded up."""
    exact = (_cosine(a, b) + 1) / 2 * buckets
    return min(max(math.floor(exact + 0.5), 0), buckets)


def similarity_buckets(vectors, real, buckets: int):
    """Every pair of a history; an item with itself is K, pairs with a padded place are K + 1."""
    index = np.full((len(vectors), len(vectors)), buckets + 1)
    for i in range(len(vectors)):
        for j in range(len(vectors)):
            if real[i] and real[j]:
                index[i, j] = buckets if i == j else similarity_bucket(vectors[i], vectors[j], buckets)
    return index


def similarity_mix(alpha, v, table, index, weight):
    """Eq. 17 summed over the keys, and the gradients of sum(weight * sum) with respect to alpha, v and table."""
    users, heads, tokens, width = v.shape
    levels = tokens // index.shape[1]
    out, by_alpha, by_v, by_table = (np.zeros(x.shape) for x in (v, alpha, v, table))
    for b, h, i, j in np.ndindex(users, heads, tokens, tokens):
        row = index[b, i // levels, j // levels]
        for c in range(width):
            e, a, value, w = table[row, h * width + c], alpha[b, h, i, j], v[b, h, j, c], weight[b, h, i, c]
            out[b, h, i, c] += e * (a * value)
            by_alpha[b, h, i, j] += w * e * value
            by_v[b, h, j, c] += w * e * a
            by_table[row, h * width + c] += w * a * value
    return out, by_alpha, by_v, by_table


def relative_bucket(distance: int, bidirectional: bool, buckets: int, max_distance: int) -> int:
    """T5's bucket of the distance key - query."""
    first = 0
    if bidirectional:
        buckets = buckets // 2
        if distance > 0:
            first = buckets
        distance = abs(distance)
    else:
        distance = -distance if distance < 0 else 0
    exact = buckets // 2
    if distance < exact:
        return first + distance
    # A hair above the line: the logarithm of an exact power is an integer that floating point may miss.
    far = math.log(distance / exact) / math.log(max_distance / exact) * (buckets - exact)
    return first + min(exact + math.floor(far + 1e-9), buckets - 1)


def attention(queries, keys, weights, heads: int, scale: float, bias, visible, e_sim=None, levels: int = 1):
    """Eq. 16-17 token by token: queries (Q, E), keys (K, E), bias (H, Q, K), visible (Q, K) -> (Q, E).

    `weights` has W_Q, W_K, W_V (H C, E) and the output map (E, H C) under q, k, v, o. `e_sim` (items, items, H C) is
    the vector of each item pair; token t belongs to item t // levels.
    """
    q, k, v = queries @ weights["q"].T, keys @ weights["k"].T, keys @ weights["v"].T
    width = q.shape[1] // heads
    mixed = np.zeros(q.shape)
    for h in range(heads):
        for i in range(len(q)):
            scores = {}
            for j in range(len(k)):
                if visible[i][j]:
                    dot = sum(q[i, h * width + c] * k[j, h * width + c] for c in range(width))
                    scores[j] = dot * scale + bias[h, i, j]
            top = max(scores.values())
            below = sum(math.exp(s - top) for s in scores.values())
            for j, s in scores.items():
                alpha = math.exp(s - top) / below
                for c in range(h * width, (h + 1) * width):
                    e = 1.0 if e_sim is None else e_sim[i // levels, j // levels, c]
                    mixed[i, c] += e * (alpha * v[j, c])
    return mixed @ weights["o"].T


def log_softmax(logits):
    top = max(logits)
    below = math.log(sum(math.exp(x - top) for x in logits)) + top
    return [x - below for x in logits]


def composite_loss(logits, codes, smoothing: float = 0.0) -> float:
    """Mean cross-entropy over predictions, levels and components; logits (P, L, M, N), codes (P, L, M)."""
    total, count = 0.0, 0
    for p in range(logits.shape[0]):
        for level in range(logits.shape[1]):
            for m in range(logits.shape[2]):
                logs = log_softmax(list(logits[p, level, m]))
                uniform = -sum(logs) / len(logs)
                total += (1 - smoothing) * -logs[codes[p][level][m]] + smoothing * uniform
                count += 1
    return total / count


def collisions(codes) -> tuple[int, int, int]:
    """(items in groups of more than one, |items| - |distinct IDs|, IDs that more than one item has)."""
    groups = Counter(tuple(int(c) for c in np.ravel(item)) for item in codes)
    crowded = [size for size in groups.values() if size > 1]
    return sum(crowded), len(codes) - len(groups), len(crowded)


def recall(ranks, k: int) -> float:
    return sum(1 for r in ranks if r <= k) / len(ranks)


def ndcg(ranks, k: int) -> float:
    """One target per user: the ideal DCG is 1 / log2(2)."""
    return sum(1 / math.log2(r + 1) for r in ranks if r <= k) / len(ranks)
