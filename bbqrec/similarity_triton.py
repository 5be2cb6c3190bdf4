"""The sum of Eq. 17 over keys on a GPU: Triton kernels, forward and backward.

A bucket belongs to a pair of items: its row of the table is read once for the L x L pairs of tokens that share it, and
no vector of a pair outlives the program that forms it. Any input may be bfloat16; sums are float32. Every number is
summed by one program in a fixed order, without atomics, so that equal inputs give equal bits.

Importing this takes `triton`, which CUDA builds of torch bring and which is no dependency of its own. The kernels were
checked in Triton's interpreter (TRITON_INTERPRET=1 before the import: they take CPU tensors) and compiled for compute
capabilities 7.5, 8.0 and 9.0, but have not yet been run or timed on a GPU.
"""

from typing import no_type_check

import torch
import triton
import triton.language as tl
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

TILE = 1024
"""Numbers of each tensor of vectors that a program holds at a time. Twice as many take most of its registers."""
KEYS, ROWS, COLUMNS = 16, 128, 32
"""What a program takes at most for the table's gradient: key items at a time (a product of matrices needs 16), and its
share of the table."""
PARTS = 64
"""Groups of users whose gradients of the table are summed by themselves, then in order."""


@triton.jit
@no_type_check
def _forward(
    alpha,  # (B, H, T L, T L)
    v,  # (B, H, T L, C), as out
    table,  # (K2, H C)
    index,  # (B, T, T)
    out,
    heads,
    items,
    LEVELS: tl.constexpr,
    WIDTH: tl.constexpr,
    CAUSAL: tl.constexpr,
    TILE_I: tl.constexpr,  # items, levels and columns, powers of two
    TILE_L: tl.constexpr,
    TILE_C: tl.constexpr,
):
    """A program: some query items of a user and a head with all their levels, some columns."""
    at = tl.program_id(0).to(tl.int64)  # user * heads + head
    head, tokens = (at % heads).to(tl.int32), items * LEVELS
    alpha, index = alpha + at * tokens * tokens, index + at // heads * items * items
    v, out = v + at * tokens * WIDTH, out + at * tokens * WIDTH
    i, level = tl.program_id(1) * TILE_I + tl.arange(0, TILE_I), tl.arange(0, TILE_L)
    c = tl.program_id(2) * TILE_C + tl.arange(0, TILE_C)
    query = i[:, None] * LEVELS + level[None, :]
    there = (i < items)[:, None] & (level < LEVELS)[None, :]
    total = tl.zeros((TILE_I, TILE_L, TILE_C), tl.float32)
    for j in range(tl.minimum(items, (tl.program_id(1) + 1) * TILE_I) if CAUSAL else items):
        seen = (i < items) & (j <= i) if CAUSAL else i < items
        row = tl.load(index + i * items + j, mask=seen, other=0).to(tl.int32) * heads + head
        factor = tl.load(table + row[:, None] * WIDTH + c, mask=seen[:, None] & (c < WIDTH), other=0.0)
        mixed = tl.zeros((TILE_I, TILE_L, TILE_C), tl.float32)
        for m in tl.static_range(LEVELS):
            key = j * LEVELS + m
            weight = tl.load(alpha + query * tokens + key, mask=there & seen[:, None], other=0.0)
            value = tl.load(v + key * WIDTH + c, mask=c < WIDTH, other=0.0)
            mixed += weight.to(tl.float32)[:, :, None] * value.to(tl.float32)
        total += mixed * factor.to(tl.float32)[:, None, :]
    place = query[:, :, None] * WIDTH + c
    tl.store(out + place, total.to(out.dtype.element_ty), mask=there[:, :, None] & (c < WIDTH))


@triton.jit
@no_type_check
def _backward(
    alpha,
    v,
    table,
    index,
    grad,  # of out
    grad_alpha,
    grad_v,
    heads,
    items,
    LEVELS: tl.constexpr,
    WIDTH: tl.constexpr,
    CAUSAL: tl.constexpr,
    TILE_I: tl.constexpr,
    TILE_L: tl.constexpr,
    TILE_C: tl.constexpr,
):
    """A program: some key items of a user and a head with all their levels and columns."""
    at = tl.program_id(0).to(tl.int64)
    head, tokens = (at % heads).to(tl.int32), items * LEVELS
    alpha, grad_alpha = alpha + at * tokens * tokens, grad_alpha + at * tokens * tokens
    v, grad, grad_v = v + at * tokens * WIDTH, grad + at * tokens * WIDTH, grad_v + at * tokens * WIDTH
    index += at // heads * items * items
    j, level, c = tl.program_id(1) * TILE_I + tl.arange(0, TILE_I), tl.arange(0, TILE_L), tl.arange(0, TILE_C)
    key = j[:, None] * LEVELS + level[None, :]
    there = (j < items)[:, None] & (level < LEVELS)[None, :]
    place, vectors = key[:, :, None] * WIDTH + c, there[:, :, None] & (c < WIDTH)
    value = tl.load(v + place, mask=vectors, other=0.0).to(tl.float32)
    total = tl.zeros((TILE_I, TILE_L, TILE_C), tl.float32)
    for i in range(tl.program_id(1) * TILE_I if CAUSAL else 0, items):
        seen = (j < items) & (j <= i) if CAUSAL else j < items
        row = tl.load(index + i * items + j, mask=seen, other=0).to(tl.int32) * heads + head
        factor = tl.load(table + row[:, None] * WIDTH + c, mask=seen[:, None] & (c < WIDTH), other=0.0)
        factor = factor.to(tl.float32)[:, None, :]
        weighted = value * factor
        mixed = tl.zeros((TILE_I, TILE_L, TILE_C), tl.float32)
        for k in tl.static_range(LEVELS):
            query = i * LEVELS + k
            pair, pairs = query * tokens + key, there & seen[:, None]
            by_out = tl.load(grad + query * WIDTH + c, mask=c < WIDTH, other=0.0).to(tl.float32)
            by_alpha = tl.sum(weighted * by_out, axis=2)
            tl.store(grad_alpha + pair, by_alpha.to(grad_alpha.dtype.element_ty), mask=pairs)
            mixed += tl.load(alpha + pair, mask=pairs, other=0.0).to(tl.float32)[:, :, None] * by_out
        total += mixed * factor
    tl.store(grad_v + place, total.to(grad_v.dtype.element_ty), mask=vectors)


@triton.jit
@no_type_check
def _backward_table(
    alpha,
    v,
    index,
    grad,
    parts,  # (P, K2, H C), float32
    users,
    heads,
    items,
    rows,
    LEVELS: tl.constexpr,
    WIDTH: tl.constexpr,
    CAUSAL: tl.constexpr,
    TILE_I: tl.constexpr,
    TILE_R: tl.constexpr,
    TILE_C: tl.constexpr,
):
    """A program: some rows and columns of the table, summed over a part of the users.

    The gradients of the factors of a few pairs are formed, then multiplied by a matrix of zeros and ones that adds each
    to its bucket's row, so that no two ever write to one place.
    """
    part, head, tokens = tl.program_id(0).to(tl.int64), tl.program_id(1), items * LEVELS
    shares = tl.cdiv(WIDTH, TILE_C)
    r = tl.program_id(2) // shares * TILE_R + tl.arange(0, TILE_R)
    c = tl.program_id(2) % shares * TILE_C + tl.arange(0, TILE_C)
    total = tl.zeros((TILE_R, TILE_C), tl.float32)
    for user in range(users * part // tl.num_programs(0), users * (part + 1) // tl.num_programs(0)):
        at = user * heads + head
        weights, values, above = alpha + at * tokens * tokens, v + at * tokens * WIDTH, grad + at * tokens * WIDTH
        for i in range(items):
            for first in range(0, i + 1 if CAUSAL else items, TILE_I):
                j = first + tl.arange(0, TILE_I)
                seen = j <= i if CAUSAL else j < items
                bucket = tl.load(index + (user * items + i) * items + j, mask=seen, other=-1).to(tl.int32)
                by_factor = tl.zeros((TILE_I, TILE_C), tl.float32)
                for m in range(LEVELS):
                    key = j * LEVELS + m
                    mixed = tl.zeros((TILE_I, TILE_C), tl.float32)
                    for k in tl.static_range(LEVELS):
                        query = i * LEVELS + k
                        weight = tl.load(weights + query * tokens + key, mask=seen, other=0.0)
                        by_out = tl.load(above + query * WIDTH + c, mask=c < WIDTH, other=0.0)
                        mixed += weight.to(tl.float32)[:, None] * by_out.to(tl.float32)
                    value = tl.load(values + key[:, None] * WIDTH + c, mask=seen[:, None] & (c < WIDTH), other=0.0)
                    by_factor += mixed * value.to(tl.float32)
                # Tensor cores round float32 first. Three times the eight highest bits of a significand are all of it,
                # and such a number times 0 or 1 comes through as it is.
                one = (r[:, None] == bucket[None, :]).to(tl.float32)
                for _ in tl.static_range(3):
                    highest = (by_factor.to(tl.int32, bitcast=True) & -65536).to(tl.float32, bitcast=True)
                    total = tl.dot(one, highest, total)
                    by_factor -= highest
    place = ((part * rows + r)[:, None] * tl.num_programs(1) + head) * WIDTH + c
    tl.store(parts + place, total, mask=(r < rows)[:, None] & (c < WIDTH))


class TritonMix(torch.autograd.Function):
    """The Triton kernels: alpha, v and table in float32 or bfloat16, the result as v, each gradient as its tensor."""

    @staticmethod
    def forward(
        ctx: FunctionCtx, alpha: Tensor, v: Tensor, table: Tensor, index: Tensor, causal: bool
    ) -> Float[Tensor, "B H TL C"]:
        alpha, v, table, index = (x.contiguous() for x in (alpha, v, table, index))
        ctx.save_for_backward(alpha, v, table, index)
        ctx.causal = causal  # type: ignore[attr-defined]
        out = torch.empty_like(v)
        users, heads, items, levels, width = _sizes(v, index)
        tile = _tile(items, levels, min(width, COLUMNS))
        grid = (users * heads, triton.cdiv(items, tile[0]), triton.cdiv(width, tile[2]))
        with torch.cuda.device_of(v):
            _forward[grid](alpha, v, table, index, out, heads, items, levels, width, causal, *tile)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        alpha, v, table, index = ctx.saved_tensors  # type: ignore[attr-defined]
        grad, causal = grad.contiguous(), ctx.causal  # type: ignore[attr-defined]
        users, heads, items, levels, width = _sizes(v, index)
        grad_alpha, grad_v = torch.zeros_like(alpha), torch.empty_like(v)
        parts = table.new_empty(min(PARTS, users), *table.shape, dtype=torch.float32)
        sizes, rows, tile = (levels, width, causal), len(table), _tile(items, levels, width)
        share = tuple(_power(min(max(x, 16), most)) for x, most in ((rows, ROWS), (width, COLUMNS)))
        keys = (users * heads, triton.cdiv(items, tile[0]))
        shares = (len(parts), heads, triton.cdiv(rows, share[0]) * triton.cdiv(width, share[1]))
        with torch.cuda.device_of(v):
            _backward[keys](alpha, v, table, index, grad, grad_alpha, grad_v, heads, items, *sizes, *tile)
            _backward_table[shares](alpha, v, index, grad, parts, users, heads, items, rows, *sizes, KEYS, *share)
        return grad_alpha, grad_v, parts.sum(0).to(table.dtype), None, None


def _sizes(v: Tensor, index: Tensor) -> tuple[int, int, int, int, int]:
    users, heads, tokens, width = v.shape
    return users, heads, index.shape[1], tokens // index.shape[1], width


def _tile(items: int, levels: int, width: int) -> tuple[int, int, int]:
    """Items, levels and columns of a program."""
    levels, width = _power(levels), _power(width)
    return min(_power(items), max(TILE // (levels * width), 1)), levels, width


def _power(x: int) -> int:
    return int(triton.next_power_of_2(x))
