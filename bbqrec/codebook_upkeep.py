"""What the training loops of stage 1 do for a codebook beside gradient steps: its start, restarts, and its health."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from bbqrec.codebook import Quantized, ResidualCodebook, perplexity
from bbqrec.semantic_ids import collisions

START_ITEMS = 16384
"""Items whose latents start the codebook, at most."""


def start(
    codebook: ResidualCodebook,
    encode: Callable[[Tensor], Tensor],
    items: Int[np.ndarray, "n"],
    iterations: int,
    generator: torch.Generator,
) -> None:
    """k-means of the latents of some of `items`: those that occur in training."""
    pick = torch.randperm(len(items), generator=generator)[:START_ITEMS].numpy()
    with torch.no_grad():
        z = encode(torch.from_numpy(items[pick]).to(codebook.codebooks.device))
    codebook.initialise(z, iterations, generator)


def restart(
    codebook: ResidualCodebook,
    optimizer: torch.optim.Optimizer,
    last: Quantized,
    generator: torch.Generator,
    wanted: bool,
) -> int:
    """Codes that the epoch did not use start again from residuals of its last batch; the usage is forgotten.

    Not `wanted` after the last epoch: a fresh code that nothing has been trained on would change the final codes.
    Returns how many were replaced.
    """
    if not wanted:
        codebook.usage.zero_()
        return 0
    replaced = codebook.restart(last.residuals.detach(), generator)
    _forget(codebook, optimizer, replaced)
    return sum(len(codes) for _, _, codes in replaced)


def _forget(
    codebook: ResidualCodebook, optimizer: torch.optim.Optimizer, replaced: list[tuple[int, int, Tensor]]
) -> None:
    """A restarted code starts without the moments of the code it replaced."""
    state = optimizer.state.get(codebook.codebooks, {})
    for level, group, codes in replaced:
        for name in ("exp_avg", "exp_avg_sq"):
            if name in state:
                state[name][level, group, codes] = 0.0


def health(codebook: ResidualCodebook, components: Sequence[str], codes: Int[np.ndarray, "I L M"]) -> dict[str, float]:
    """Codes in use and perplexity per level and component, and the collisions of the whole catalogue's codes."""
    spread, used = perplexity(codebook.usage), (codebook.usage > 0).sum(-1)
    found = {}
    for level in range(len(codebook.codebooks)):
        for number, component in enumerate(components):
            found[f"codes/perplexity_{level}_{component}"] = float(spread[level, number])
            found[f"codes/used_{level}_{component}"] = float(used[level, number])
    count = collisions(codes)
    return found | {"codes/colliding_items": float(count.colliding_items), "codes/excess": float(count.excess)}
