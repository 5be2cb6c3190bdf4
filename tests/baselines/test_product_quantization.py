"""Optimised product quantization: its codes against loops, small data, and the same codes whatever surrounds it."""

import subprocess
import sys

import numpy as np
import pytest
import torch

from bbqrec.baselines.product_quantization import ProductCodes, product_codes, sizes
from bbqrec.errors import InputError


def correlated(vectors: int, features: int, seed: int = 3) -> np.ndarray:
    """Few directions hold most of the variance, and the mean is far from zero."""
    generator = np.random.default_rng(seed)
    mixed = generator.normal(size=(features, features)) * 0.5 ** np.arange(features)[:, None]
    return (generator.normal(size=(vectors, features)) @ mixed + 5).astype(np.float32)


def error(x: np.ndarray, found: ProductCodes) -> float:
    """Mean squared distance of the rotated vectors from their codewords, slice by slice."""
    rotation, books, mean = found.rotation.numpy(), found.codebooks.numpy(), found.mean.numpy()
    total = 0.0
    for row, codes in zip(x.astype(np.float64), found.codes.tolist(), strict=True):
        rebuilt = np.concatenate([books[digit][code] for digit, code in enumerate(codes)])
        total += sum((rotation @ (row - mean) - rebuilt) ** 2) / len(x)
    return total


def test_codes_are_the_nearest_codewords_of_the_rotated_slices():
    x = correlated(70, 10)
    found = product_codes(x, 4, 8, 5)  # ten features padded to four slices of three
    rotation, books = found.rotation.numpy(), found.codebooks.numpy()
    assert books.shape == (4, 8, 3) and rotation.shape == (12, 10)
    mean = x.astype(np.float64).mean(0)
    for row, codes in zip(x.astype(np.float64), found.codes.tolist(), strict=True):
        rotated = [sum(rotation[j, f] * (row[f] - mean[f]) for f in range(10)) for j in range(12)]
        for digit in range(4):
            part = rotated[3 * digit : 3 * digit + 3]
            distances = [sum((a - b) ** 2 for a, b in zip(part, word, strict=True)) for word in books[digit]]
            assert codes[digit] == int(np.argmin(distances))


def test_rotation_keeps_distances_and_makes_the_codes_better():
    x = correlated(300, 12)
    found = product_codes(x, 3, 16, 20)
    np.testing.assert_allclose(found.rotation.T @ found.rotation, np.eye(12), atol=1e-5)
    assert error(x, found) < 0.9 * error(x, product_codes(x, 3, 16, 1))
    assert error(x, found) < 0.5 * ((x - x.mean(0)) ** 2).sum(1).mean()


def test_every_digit_uses_its_codes():
    codes = product_codes(correlated(300, 12), 3, 16, 20).codes
    assert all(len(codes[:, digit].unique()) == 16 for digit in range(3))


@pytest.mark.parametrize(
    ("vectors", "features", "expected"),
    [
        (1000, 384, (32, 256, 12)),
        (1000, 100, (32, 256, 4)),  # padded to 128
        (255, 768, (32, 128, 24)),
        (54, 16, (16, 32, 1)),
        (2, 5, (5, 2, 1)),
    ],
)
def test_sizes_give_way_to_small_data(vectors, features, expected):
    assert sizes(vectors, features, 32, 256) == expected


@pytest.mark.parametrize(("vectors", "features"), [(2, 5), (9, 40), (39, 33), (40, 33), (20, 1)])
def test_fewer_vectors_than_features_are_quantized_too(vectors, features):
    x = correlated(vectors, features)
    found = product_codes(x, 32, 256, 3)
    assert tuple(found.codebooks.shape) == sizes(vectors, features, 32, 256)
    assert found.codes.shape[0] == vectors and len(found.codes.unique(dim=0)) > vectors // 2


def test_equal_vectors_have_equal_codes():
    x = np.repeat(correlated(4, 6), 3, axis=0)
    codes = product_codes(x, 3, 8, 5).codes
    assert len(codes.unique(dim=0)) == 4 and torch.equal(codes[0], codes[2])
    assert len(product_codes(np.ones((9, 4), np.float32), 2, 4, 5).codes.unique(dim=0)) == 1


def test_one_vector_is_too_few():
    with pytest.raises(InputError, match="product quantization of 1 items"):
        sizes(1, 16, 32, 256)


def test_neither_seeds_nor_threads_change_the_codes():
    import faiss

    x = correlated(900, 48)
    torch.manual_seed(1)
    first = product_codes(x, 8, 64, 4)
    drawn = torch.rand(1)
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(2)
    try:
        torch.manual_seed(1)
        again = product_codes(x, 8, 64, 4)
        assert faiss.omp_get_max_threads() == 2 and torch.equal(torch.rand(1), drawn)
    finally:
        faiss.omp_set_num_threads(before)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


def test_faiss_prints_nothing(capfd):
    product_codes(correlated(40, 6), 3, 32, 3)
    assert capfd.readouterr() == ("", "")


def test_without_faiss_the_remedy_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(InputError, match="pip install faiss-cpu") as caught:
        product_codes(correlated(9, 4), 2, 4, 1)
    assert len(str(caught.value).splitlines()) == 1


def test_faiss_is_imported_where_it_is_used_only():
    code = "import sys, bbqrec.methods, bbqrec.tasks; print('faiss' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "False"
