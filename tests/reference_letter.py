"""Slow loops over LETTER's equations, and transports and assignments by their definitions."""

import itertools
import math

import numpy as np
import reference as ref


def transport(distance, epsilon: float, iterations: int):
    """Sinkhorn's plan with rows of 1 and columns of P / N; rows of nobody fill up if P < N."""
    points, codes = distance.shape
    low, high = distance.min(), distance.max()
    rows = [[math.exp(-(d - low) / ((high - low) / 2) / epsilon) for d in row] for row in distance.tolist()]
    rows += [[1.0] * codes for _ in range(codes - points)]
    plan = np.array(rows)
    for _ in range(iterations):
        for j in range(codes):
            plan[:, j] *= len(plan) / codes / sum(plan[:, j])
        for i in range(len(plan)):
            plan[i] /= sum(plan[i])
    return plan[:points]


def accepted(score, room: int) -> list[int]:
    """Deferred acceptance, one proposal at a time: -1 for a point that no code keeps."""
    points, codes = score.shape
    ahead = [sorted(range(codes), key=lambda j, i=i: (-score[i, j], j)) for i in range(points)]
    kept: list[list[int]] = [[] for _ in range(codes)]
    free = list(range(points))
    while free:
        i = free.pop()
        if ahead[i]:
            j = ahead[i].pop(0)
            kept[j].append(i)
            if len(kept[j]) > room:
                worst = max(kept[j], key=lambda k, j=j: (-score[k, j], k))
                kept[j].remove(worst)
                free.append(worst)
    return [next((j for j in range(codes) if i in kept[j]), -1) for i in range(points)]


def rounded(score) -> list[int]:
    """Each code P // N points, then a code each for the points that are left."""
    points, codes = score.shape
    chosen = accepted(score, points // codes) if points >= codes else [-1] * points
    left = [i for i in range(points) if chosen[i] < 0]
    for i, j in zip(left, accepted(score[left], 1), strict=True):
        chosen[i] = j
    return chosen


def cheapest(distance) -> float:
    """The least total distance of an assignment in which codes differ by at most one point, by trying all."""
    points, codes = distance.shape
    best = math.inf
    for chosen in itertools.product(range(codes), repeat=points):
        counts = [chosen.count(j) for j in range(codes)]
        if max(counts) - min(counts) <= 1:
            best = min(best, sum(distance[i, j] for i, j in enumerate(chosen)))
    return best


def squared_distances(points, codes):
    return np.array([[sum((p - c) ** 2) for c in codes] for p in points])


def collaborative(q, h) -> float:
    """L_CF with inner products over the batch."""
    value = 0.0
    for i in range(len(q)):
        below = sum(math.exp(sum(a * b for a, b in zip(q[i], h[j], strict=True))) for j in range(len(h)))
        value -= math.log(math.exp(sum(a * b for a, b in zip(q[i], h[i], strict=True))) / below)
    return value / len(q)


def diversity(book, chosen, positive) -> float:
    """L_Div of a level: the code of each item against all codes but itself."""
    value = 0.0
    for own, other in zip(chosen, positive, strict=True):
        products = {
            j: sum(a * b for a, b in zip(book[own], book[j], strict=True)) for j in range(len(book)) if j != own
        }
        value -= math.log(math.exp(products[other]) / sum(math.exp(p) for p in products.values()))
    return value / len(chosen)


def quantized(z, books, epsilon: float, iterations: int):
    """Codes (R, L), residuals and codewords (R, L, D): nearest codes, at the last level a transport of the batch."""
    upper = [ref.residual_quantization(row, books[:-1]) for row in z]
    codes = [list(found[0]) for found in upper]
    last = np.array([row - found[3] for row, found in zip(z, upper, strict=True)])
    plan = transport(squared_distances(last, books[-1]), epsilon, iterations)
    for row, shares in zip(codes, plan, strict=True):
        row.append(list(shares).index(max(shares)))
    residuals = np.array([[*found[1], row] for found, row in zip(upper, last, strict=True)])
    codewords = np.array([[books[level][code] for level, code in enumerate(row)] for row in codes])
    return np.array(codes), residuals, codewords
