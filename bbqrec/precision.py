"""The number format of training's matrix products. Weights, norms, softmaxes, losses and decoding stay in float32."""

import torch


def resolved(precision: str, device: torch.device) -> str:
    """ "auto" is bfloat16 where the hardware multiplies it: on GPUs, and on CPUs with AVX512-BF16 or AMX."""
    if precision != "auto":
        return precision
    if device.type == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"
    return "bfloat16" if torch.cpu._is_avx512_bf16_supported() else "float32"


def products_in(precision: str, device: torch.device) -> torch.autocast:
    """A context in which matrix products are taken in a resolved precision."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16")
