"""Starts a group of gloo workers on this machine, for tests of what they compute together."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as group
import torch.multiprocessing as multiprocessing

WORLD = 2


def together(work: Callable[..., None], folder: Path, *args: Any) -> None:
    """Calls `work(folder, *args)`, a function of a module, in each of two workers. Raises what one of them raises."""
    folder.mkdir()
    multiprocessing.spawn(_worker, (work, folder, *args), nprocs=WORLD)


def _worker(rank: int, work: Callable[..., None], folder: Path, *args: Any) -> None:
    torch.set_num_threads(1)
    group.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=WORLD)
    work(folder, *args)
    group.barrier()
    group.destroy_process_group()
    os._exit(0)  # the interpreter's own end has been seen to abort beside Gloo's threads
