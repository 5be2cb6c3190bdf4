"""Optimised product quantization (OPQ; Ge et al., "Optimized Product Quantization", CVPR 2013), fitted by faiss.

A rotation, learned together with the codebooks, spreads the vectors over slices of equal width; k-means gives each
slice its own codebook, and a vector's code is one number per slice, its digit.

The sizes give way to small data: there are at most as many digits as features; the vectors are padded with zeros up to
a multiple of the digits; and the codes per digit are at most the vectors, rounded down to a power of two.
"""

from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from bbqrec.codebook import nearest
from bbqrec.errors import InputError


class Sizes(NamedTuple):
    """What is left of the asked-for sizes, and the width of a slice."""

    digits: int
    codes: int
    width: int


class ProductCodes(NamedTuple):
    """Of every vector x its codes (L digits), with the rotation, the codebooks and the mean they came from.

    Digit l is the nearest of `codebooks[l]` to slice l of rotation (x - mean).
    """

    codes: Int[Tensor, "R L"]
    rotation: Float[Tensor, "LD F"]
    codebooks: Float[Tensor, "L N D"]
    mean: Float[Tensor, "F"]


def sizes(vectors: int, features: int, digits: int, codes: int) -> Sizes:
    """The sizes that so many vectors and features allow. Raises InputError for fewer than two vectors."""
    if vectors < 2:
        raise InputError(f"product quantization of {vectors} items", "give features of at least two items")
    digits = min(digits, features)
    return Sizes(digits, 2 ** (min(codes, vectors).bit_length() - 1), -(-features // digits))


def product_codes(x: Float[np.ndarray, "R F"], digits: int, codes: int, iterations: int) -> ProductCodes:
    """Fits and encodes x: the same codes for the same x, whatever the seed and the number of threads.

    Raises InputError where faiss is not installed.
    """
    faiss = _faiss()
    size = sizes(len(x), x.shape[1], digits, codes)
    outer = size.digits * size.width
    mean = x.mean(0, dtype=np.float64)
    centred = np.ascontiguousarray(x - mean, dtype=np.float32)
    # faiss writes beyond a buffer when it trains a rotation on fewer vectors than their padded width.
    enough = np.tile(centred, (-(-outer // len(x)), 1))
    rotate = faiss.OPQMatrix(x.shape[1], size.digits, outer)
    draft, book = _codebooks(faiss, size), _codebooks(faiss, size)
    rotate.niter, rotate.pq = iterations, draft  # a bare pointer: `draft` has to live as long
    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)  # sums of several threads differ in their last bits, and then codes do
    try:
        rotate.train(enough)
        book.train(rotate.apply(centred))
    finally:
        faiss.omp_set_num_threads(threads)
    rotation = torch.from_numpy(faiss.vector_to_array(rotate.A).reshape(outer, -1).astype(np.float64))
    books = torch.from_numpy(faiss.vector_to_array(book.centroids).reshape(size).astype(np.float64))
    slices = (torch.from_numpy(x - mean) @ rotation.T).unflatten(1, (size.digits, size.width))
    chosen = [nearest(slices[:, [digit]], books[[digit]])[:, 0] for digit in range(size.digits)]
    return ProductCodes(torch.stack(chosen, dim=1), rotation, books, torch.from_numpy(mean))


def _codebooks(faiss: Any, size: Sizes) -> Any:
    book = faiss.ProductQuantizer(size.digits * size.width, size.digits, size.codes.bit_length() - 1)
    book.cp.min_points_per_centroid = 1  # below its own minimum faiss prints a warning for every k-means
    return book


def _faiss() -> Any:
    try:
        import faiss
    except ImportError as error:
        raise InputError(f"product quantization needs faiss ({error})", "pip install faiss-cpu") from error
    return faiss
