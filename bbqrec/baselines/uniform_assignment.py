"""Points to codes so that no code is preferred: Sinkhorn's transport, its rounding, and k-means under that rule.

The problem is that of LC-Rec's uniform mapping (Zheng et al., ICDE 2024, https://arxiv.org/abs/2311.09049), which
LETTER's code takes over: each code gets an equal share of the points, at the least total distance. Departures from that
code: where shares have to be equal, the transport is rounded so that they are to within one point (the code takes each
point's largest entry); and if there are fewer points than codes, a code takes one point or none (the code spreads the
points over all codes).
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

FARTHEST = 600.0
"""Costs in units of epsilon count as no more than this: their exponentials and its inverse are doubles."""


def log_transport(distance: Float[Tensor, "P N"], epsilon: float, iterations: int) -> Float[Tensor, "P N"]:
    """log of the entropy-regularised transport of P points of mass 1 to N codes, by Sinkhorn's iterations in float64.

    Every code takes P / N; with fewer points than codes each takes at most 1, since a row of the mass that is left
    stands for the points that are not there. `epsilon` is in units of half the range of the distances. Of the two
    marginals that of the points is exact. Raises FloatingPointError for a distance that is not finite.
    """
    if not bool(torch.isfinite(distance).all()):
        raise FloatingPointError("a distance to a code is not finite")
    points, codes = distance.shape
    cost = (distance - distance.min()).double()
    cost = (cost - cost.amin(1, keepdim=True)) / (cost.max() / 2).clamp(min=1e-12) / epsilon
    log_kernel = -cost.clamp(max=FARTHEST)
    mass, room = log_kernel.new_ones(points), points / codes
    if points < codes:
        log_kernel = torch.cat((log_kernel, log_kernel.new_zeros(1, codes)))
        mass, room = torch.cat((mass, mass.new_tensor([codes - points]))), 1.0
    kernel = log_kernel.exp()
    rows = torch.ones_like(mass)
    for _ in range(iterations):
        columns = room / (rows @ kernel)
        rows = mass / (kernel @ columns)
    return (log_kernel + rows.log()[:, None] + columns.log())[:points]


def rounded(log_plan: Float[Tensor, "P N"]) -> Int[Tensor, "P"]:
    """A code for each point, every code P / N times, rounded down or up, by the plan's largest entries.

    First each code takes P // N points, then the points that are left take a code each.
    """
    points, codes = log_plan.shape
    chosen = torch.full((points,), -1, device=log_plan.device)
    if points >= codes:
        chosen = _accepted(log_plan, points // codes)
    left = (chosen < 0).nonzero()[:, 0]
    chosen[left] = _accepted(log_plan[left], 1)
    return chosen


def _accepted(score: Float[Tensor, "P N"], room: int) -> Int[Tensor, "P"]:
    """Deferred acceptance: points propose to codes by falling score, and a code keeps its `room` best; -1 for a point
    that no code keeps. Of equal scores the lower index wins."""
    points, codes = score.shape
    index = torch.arange(points, device=score.device)
    chosen = torch.full_like(index, -1)
    worst = score.new_full((codes,), -torch.inf)  # what a full code would give up for a better point
    while True:
        free = (chosen < 0).nonzero()[:, 0]
        open_to = score[free].masked_fill(score[free] <= worst, -torch.inf)
        best, code = open_to.max(1)
        proposing = best > -torch.inf
        if not bool(proposing.any()):
            return chosen
        chosen[free[proposing]] = code[proposing]
        held = (chosen >= 0).nonzero()[:, 0]
        own = score[held, chosen[held]]
        order = torch.argsort(own, descending=True, stable=True)
        order = order[torch.argsort(chosen[held][order], stable=True)]  # by code, the best first
        held, own = held[order], own[order]
        code = chosen[held]
        place = index[: len(held)] - torch.searchsorted(code, code)
        worst[code[place == room - 1]] = own[place == room - 1]
        chosen[held[place >= room]] = -1


def uniform_assignment(
    points: Float[Tensor, "P D"], codes: Float[Tensor, "N D"], epsilon: float, iterations: int
) -> Int[Tensor, "P"]:
    """A code for each point: every code equally often, at about the least total squared distance."""
    return rounded(log_transport(torch.cdist(points, codes).square(), epsilon, iterations))


def even_kmeans(
    points: Float[Tensor, "P D"], k: int, steps: int, epsilon: float, iterations: int, generator: torch.Generator
) -> Int[Tensor, "P"]:
    """Constrained k-means: the cluster of each point; clusters differ in size by at most one."""
    centres = points[torch.randperm(len(points), generator=generator)[:k].to(points.device)]
    cluster = uniform_assignment(points, centres, epsilon, iterations)
    for _ in range(steps):
        sums = torch.zeros_like(centres).index_add_(0, cluster, points)
        centres = sums / torch.bincount(cluster, minlength=k)[:, None]
        cluster = uniform_assignment(points, centres, epsilon, iterations)
    return cluster
