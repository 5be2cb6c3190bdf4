"""The sum of Eq. 17 over keys, without ever holding a vector per pair of tokens or of items.

On a CPU with a C compiler a kernel visits each pair of items once (`similarity_mix.c`), as Triton's do on a GPU
(`similarity_triton.py`). Elsewhere the L tokens of a query item share their weighted values, formed for one query item
at a time, forward and again backward, never stored.
"""

import ctypes
import logging
import os
from functools import cache
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

from bbqrec.native import kernel

log = logging.getLogger(__name__)


def similarity_mix(
    alpha: Float[Tensor, "B H TL TL"],
    v: Float[Tensor, "B H TL C"],
    table: Float[Tensor, "K2 HC"],
    index: Int[Tensor, "B T T"],
    causal: bool = False,
) -> Float[Tensor, "B H TL C"]:
    """out_ik = sum_jl alpha_ij^kl (e_ij^sim * W_V e_j^l) with e_ij^sim = table[index_ij], split into heads.

    `causal` promises that alpha is zero wherever the key's item comes after the query's, and skips those pairs. Takes
    the fastest path that the device and the number format have; they differ by rounding only.
    """
    index = index.long()
    fits = v.dtype in (torch.float32, torch.bfloat16) and v.shape[2] <= 16 * index.shape[1]
    if fits and v.device.type == "cpu" and kernel("similarity_mix") is not None:
        return _Native.apply(alpha.float(), v.float(), table.float(), index, causal).to(v.dtype)
    if fits and v.device.type == "cuda" and v.numel() and (mix := _triton_mix(v.device)) is not None:
        return mix.apply(alpha, v, table, index, causal)
    return _ByQuery.apply(alpha.to(v.dtype), v, table, index, causal)


PARTS = 16
"""Groups of users whose gradients of the table are summed by themselves: however many threads share them, the sum is
the same."""


class _Sizes(ctypes.Structure):
    _fields_ = [
        (name, ctypes.c_int64)
        for name in ("users", "heads", "items", "levels", "width", "rows", "causal", "parts", "threads")
    ]


class _Native(torch.autograd.Function):
    """The C kernel, float32."""

    @staticmethod
    def forward(
        ctx: FunctionCtx, alpha: Tensor, v: Tensor, table: Tensor, index: Tensor, causal: bool
    ) -> Float[Tensor, "B H TL C"]:
        alpha, v, table, index = (x.contiguous() for x in (alpha, v, table, index))
        ctx.save_for_backward(alpha, v, table, index)
        ctx.causal = causal  # type: ignore[attr-defined]
        out = torch.empty_like(v)
        _call("similarity_mix_forward", _sizes(v, table, index, causal), alpha, v, table, index, out)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        alpha, v, table, index = ctx.saved_tensors  # type: ignore[attr-defined]
        sizes = _sizes(v, table, index, ctx.causal)  # type: ignore[attr-defined]
        grad_alpha, grad_v = torch.zeros_like(alpha), torch.zeros_like(v)
        grad_table = table.new_zeros(sizes.parts, *table.shape)
        _call(
            "similarity_mix_backward", sizes, alpha, v, table, index, grad.contiguous(), grad_alpha, grad_v, grad_table
        )
        return grad_alpha, grad_v, grad_table.sum(0), None, None


def _sizes(v: Tensor, table: Tensor, index: Tensor, causal: bool) -> Any:
    users, heads, tokens, width = v.shape
    items, threads = index.shape[1], torch.get_num_threads()
    return _Sizes(users, heads, items, tokens // max(items, 1), width, table.shape[0], causal, PARTS, threads)


def _call(name: str, sizes: Any, *tensors: Tensor) -> None:
    function = getattr(kernel("similarity_mix"), name)
    function(sizes, *(ctypes.c_void_p(tensor.data_ptr()) for tensor in tensors))


class _ByQuery(torch.autograd.Function):
    """Any device and number format: batched products, one query item at a time."""

    @staticmethod
    def forward(
        ctx: FunctionCtx, alpha: Tensor, v: Tensor, table: Tensor, index: Tensor, causal: bool
    ) -> Float[Tensor, "B H TL C"]:
        ctx.save_for_backward(alpha, v, table, index)
        ctx.causal = causal  # type: ignore[attr-defined]
        out = torch.empty(v.shape, dtype=v.dtype, device=v.device)
        by_item = _Items.of(v, index)
        for i in range(by_item.items):
            keys = i + 1 if causal else by_item.items
            rows, tokens = by_item.tokens(i), keys * by_item.levels
            weighted = by_item.weighted(by_item.factors(table, i, keys), keys)  # (B, H, keys, L, C)
            out[:, :, rows] = alpha[:, :, rows, :tokens] @ weighted.flatten(2, 3)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        alpha, v, table, index = ctx.saved_tensors  # type: ignore[attr-defined]
        causal = ctx.causal  # type: ignore[attr-defined]
        grad_alpha = torch.zeros_like(alpha)
        # Many small terms: not summed in bfloat16.
        full = torch.promote_types(v.dtype, torch.float32)
        grad_v, grad_table = torch.zeros_like(v, dtype=full), torch.zeros_like(table, dtype=full)
        by_item = _Items.of(v, index)
        grad_values = grad_v.view_as(by_item.values)
        for i in range(by_item.items):
            keys = i + 1 if causal else by_item.items
            rows, tokens = by_item.tokens(i), keys * by_item.levels
            factors = by_item.factors(table, i, keys)  # (B, H, keys, 1, C)
            weighted = by_item.weighted(factors, keys).flatten(2, 3)
            grad_alpha[:, :, rows, :tokens] = grad[:, :, rows] @ weighted.transpose(2, 3)
            grad_weighted = (alpha[:, :, rows, :tokens].transpose(2, 3) @ grad[:, :, rows]).view(
                *factors.shape[:3], by_item.levels, -1
            )
            grad_values[:, :, :keys] += grad_weighted * factors
            grad_factors = (grad_weighted * by_item.values[:, :, :keys]).sum(3)  # (B, H, keys, C)
            by_pair = grad_factors.permute(0, 2, 1, 3).flatten(2).flatten(0, 1)
            grad_table.index_add_(0, index[:, i, :keys].flatten(), by_pair.to(grad_table.dtype))
        return grad_alpha, grad_v.to(v.dtype), grad_table.to(table.dtype), None, None


class _Items:
    """Values grouped by item: `values` (B, H, T, L, C)."""

    def __init__(self, values: Tensor, index: Tensor) -> None:
        self.values, self.index = values, index
        self.items, self.levels = values.shape[2], values.shape[3]

    @classmethod
    def of(cls, v: Tensor, index: Tensor) -> "_Items":
        items = index.shape[1]
        return cls(v.contiguous().view(*v.shape[:2], items, v.shape[2] // items, v.shape[3]), index)

    def tokens(self, item: int) -> slice:
        return slice(item * self.levels, (item + 1) * self.levels)

    def factors(self, table: Tensor, item: int, keys: int) -> Float[Tensor, "B H J 1 C"]:
        """e_sim of one query item towards the first `keys` items."""
        heads = self.values.shape[1]
        return table[self.index[:, item, :keys]].unflatten(-1, (heads, -1)).permute(0, 2, 1, 3)[:, :, :, None]

    def weighted(self, factors: Float[Tensor, "B H J 1 C"], keys: int) -> Float[Tensor, "B H J L C"]:
        return torch.mul(self.values[:, :, :keys], factors).to(self.values.dtype).contiguous()


@cache
def _triton_mix(device: torch.device) -> type[torch.autograd.Function] | None:
    """The Triton kernels, tried once; None with BBQREC_NATIVE=0, or where they cannot be imported or are not right."""
    if os.environ.get("BBQREC_NATIVE") == "0":
        return None
    try:
        from bbqrec.similarity_triton import TritonMix

        if _agrees(TritonMix, device):
            return TritonMix
        said = "its results are not right"
    except Exception as error:  # triton, its compiler and the driver each have their own
        said = " ".join(f"{type(error).__name__}: {error}".split())[:300]
    log.warning("The Triton kernel cannot be used on %s, the slower path is used: %s", device, said)
    return None


def _agrees(mix: type[torch.autograd.Function], device: torch.device) -> bool:
    """Whether a path gives what the plain one gives on a few numbers, in value and gradients."""
    generator = torch.Generator().manual_seed(0)
    shapes = ((2, 2, 6, 6), (2, 2, 6, 5), (4, 10))  # alpha, v, table: 3 items of 2 levels
    with torch.inference_mode(False), torch.enable_grad(), torch.autocast(device.type, enabled=False):
        given = [torch.rand(shape, generator=generator).to(device).requires_grad_() for shape in shapes]
        index = (torch.arange(18) % 4).view(2, 3, 3).to(device)
        found = []
        for path in (mix, _ByQuery):
            out = path.apply(*given, index, False)
            found.append([out, *torch.autograd.grad(out.square().sum(), given)])
    return all(torch.allclose(one, other, rtol=1e-2, atol=1e-2) for one, other in zip(*found, strict=True))
