"""Where a run computes."""

from pathlib import Path

import ray
import torch

from bbqrec.errors import InputError

NVIDIA_DRIVER = Path("/proc/driver/nvidia/version")


def device() -> str:
    """`cuda` if Ray gave this process a GPU that its machine has, else `cpu`.

    Raises InputError on a machine with an NVIDIA driver whose GPU this build of torch cannot use: the run would hold
    the GPU and compute on the CPU.
    """
    if not ray.get_gpu_ids():
        return "cpu"
    if torch.cuda.is_available():
        return "cuda"
    if NVIDIA_DRIVER.exists():
        what = f"torch {torch.__version__} does not see the GPU that this run was given"
        raise InputError(
            what, "install torch's CUDA build on every node (make setup TORCH_INDEX=), or --gpus-per-run 0"
        )
    return "cpu"
