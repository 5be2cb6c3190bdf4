"""Several workers that train one run: each takes its share of every batch, and all hold the same weights.

The workers are those of `torch.distributed`, which whoever starts them has set up; a process that knows of no such
group is the only worker, and nothing here changes a bit of what it computes. All workers call these functions in the
same order: one that is missing makes the others wait until the group's time limit.
"""

from collections.abc import Iterable

import numpy as np
import torch
import torch.distributed as group
from jaxtyping import Float, Int
from torch import Tensor, nn


def world() -> int:
    """Number of workers of this run."""
    return group.get_world_size() if group.is_available() and group.is_initialized() else 1


def rank() -> int:
    """This worker's number, from 0. Worker 0 reads checkpoints and writes to the store."""
    return group.get_rank() if world() > 1 else 0


def require_one_worker(what: str) -> None:
    """Raises ValueError in a group of several.

    A quantizer's terms (contrast within the batch, the batch's mean and variance, distinct items, codes drawn from the
    batch) and some losses of recommenders compare a batch's examples with each other; a share has fewer of them, and
    the mean over the shares is another loss.
    """
    if world() > 1:
        raise ValueError(f"{what} is trained by one worker, not by {world()}")


def share(rows: Int[np.ndarray, "R"]) -> Int[np.ndarray, "_"]:
    """This worker's part of rows that all workers have. Every WORLDth: rows in order of length cost each the same."""
    return rows[rank() :: world()]


def agreed(data: bytes | None) -> bytes | None:
    """What worker 0 says; the others' `data` is not looked at."""
    if world() == 1:
        return data
    size = torch.tensor([-1 if data is None else len(data)])
    group.broadcast(size, 0)
    if int(size) <= 0:
        return None if int(size) < 0 else b""
    blob = torch.empty(int(size), dtype=torch.uint8)
    if rank() == 0 and data is not None:
        blob.numpy()[:] = np.frombuffer(data, dtype=np.uint8)
    group.broadcast(blob, 0)
    return blob.numpy().tobytes()


def same_start(model: nn.Module) -> None:
    """Gives every worker the parameters and buffers of worker 0's model."""
    if world() > 1:
        for tensor in model.state_dict().values():
            group.broadcast(tensor, 0)


def joined(ranks: Int[np.ndarray, "R"], fault: FloatingPointError | None) -> Int[np.ndarray, "R"]:
    """The ranks that the workers found for their shares, the others' places being 0.

    Raises FloatingPointError on every worker if one of them had a `fault`: else the others would wait for it.
    """
    if world() > 1:
        every = torch.from_numpy(np.append(ranks, np.int32(fault is not None)))
        group.all_reduce(every)
        if fault is None and int(every[-1]):
            raise FloatingPointError("another worker's scores are not numbers")
        ranks = every[:-1].numpy()
    if fault is not None:
        raise fault
    return ranks


def combined(
    parameters: Iterable[nn.Parameter], loss: Float[Tensor, ""] | None, targets: int
) -> tuple[Float[Tensor, ""], int]:
    """The joint batch's mean loss and number of targets; its gradients are left in the parameters.

    `loss` is the mean over this worker's `targets`, with gradients; None for a share without any. Workers weigh by
    their targets. A parameter that no share has used keeps the gradient None.
    """
    used = [p for p in parameters if p.requires_grad]
    if loss is not None:
        (loss * targets).backward()
    like = used[0]
    total = like.new_zeros(()) if loss is None else loss.detach().to(like.dtype) * targets
    told = [float(targets), *(float(p.grad is not None) for p in used)]
    parts = [torch.zeros_like(p) if p.grad is None else p.grad for p in used]
    flat = torch.cat([*(part.flatten() for part in parts), total[None], like.new_tensor(told)])
    group.all_reduce(flat)
    every = flat[-len(told) :].tolist()
    flat /= every[0]
    begin = 0
    for p, users in zip(used, every[1:], strict=True):
        p.grad = flat[begin : begin + p.numel()].view_as(p) if users else None
        begin += p.numel()
    return flat[begin], int(every[0])
