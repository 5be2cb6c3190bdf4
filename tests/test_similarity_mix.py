"""The sum of Eq. 17 and its hand-written gradients, on every path, against loops over all pairs of tokens."""

import logging
import os
import shlex
from pathlib import Path

import numpy as np
import pytest
import reference
import torch

from bbqrec import native
from bbqrec.similarity_mix import similarity_mix

B, H, T, L, C, ROWS = 2, 3, 4, 2, 5, 7


def parts(causal: bool) -> tuple[torch.Tensor, ...]:
    generator = np.random.default_rng(4)
    alpha = generator.random((B, H, T * L, T * L))
    if causal:
        for i in range(T * L):
            for j in range(T * L):
                if j // L > i // L:
                    alpha[:, :, i, j] = 0.0
    v, table = generator.normal(size=(B, H, T * L, C)), generator.normal(size=(ROWS, H * C))
    return tuple(torch.from_numpy(x).requires_grad_() for x in (alpha, v, table))


INDEX = torch.from_numpy(np.random.default_rng(9).integers(0, ROWS, (B, T, T)))
WEIGHT = torch.from_numpy(np.random.default_rng(8).normal(size=(B, H, T * L, C)))


@pytest.mark.parametrize("causal", [True, False])
def test_value_and_gradients_equal_the_loops(causal):
    alpha, v, table = parts(causal)
    found = similarity_mix(alpha, v, table, INDEX, causal)
    (found * WEIGHT).sum().backward()
    given = (x.detach().numpy() for x in (alpha, v, table, INDEX, WEIGHT))
    out, by_alpha, by_v, by_table = reference.similarity_mix(*given)
    np.testing.assert_allclose(found.detach().numpy(), out, atol=1e-12)
    np.testing.assert_allclose(v.grad.numpy(), by_v, atol=1e-12)
    np.testing.assert_allclose(table.grad.numpy(), by_table, atol=1e-12)
    # Where the promise of causality holds, alpha is a constant 0 and its gradient is nobody's.
    seen = np.array([[not causal or j // L <= i // L for j in range(T * L)] for i in range(T * L)])
    np.testing.assert_allclose(alpha.grad.numpy() * seen, by_alpha * seen, atol=1e-12)


def test_causal_skips_what_is_zero_anyway():
    alpha, v, table = parts(True)
    one, other = (similarity_mix(alpha, v, table, INDEX, causal) for causal in (True, False))
    torch.testing.assert_close(one, other, atol=1e-12, rtol=0)


def test_values_that_are_not_contiguous():
    alpha, v, table = parts(False)
    turned = v.transpose(1, 2).contiguous().transpose(1, 2)
    assert not turned.is_contiguous()
    found = similarity_mix(alpha, turned, table, INDEX)
    torch.testing.assert_close(found, similarity_mix(alpha, v, table, INDEX))
    grads = torch.autograd.grad((found * WEIGHT).sum(), (alpha, v, table))
    expected = torch.autograd.grad((similarity_mix(alpha, v, table, INDEX) * WEIGHT).sum(), (alpha, v, table))
    for one, other in zip(grads, expected, strict=True):
        torch.testing.assert_close(one, other)


@pytest.fixture
def kernels(tmp_path, monkeypatch):
    """A cache of its own, so that the kernel is compiled here and now."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    native.kernel.cache_clear()
    yield tmp_path
    native.kernel.cache_clear()


needs_compiler = pytest.mark.skipif(native.kernel("similarity_mix") is None, reason="no C compiler")


def drawn(levels: int, causal: bool, items: int = 5, users: int = 3) -> tuple[tuple[torch.Tensor, ...], torch.Tensor]:
    """alpha, v, table and the index; the last items of a user are padding, which nothing attends to."""
    generator = torch.Generator().manual_seed(levels)
    alpha = torch.softmax(torch.randn(users, H, items * levels, items * levels, generator=generator) * 2, dim=-1)
    alpha[:2, :, :, -levels:] = 0.0
    if causal:
        grid = torch.arange(items * levels) // levels
        alpha = alpha * (grid[None, :] <= grid[:, None])
    v = torch.randn(users, H, items * levels, 19, generator=generator)
    table = 1 + 0.5 * torch.randn(ROWS, H * 19, generator=generator)
    return (alpha, v, table), torch.randint(0, ROWS, (users, items, items), generator=generator)


def value_and_gradients(tensors, index, causal: bool, dtype: torch.dtype) -> list[torch.Tensor]:
    given = [x.to(dtype).requires_grad_() for x in tensors]
    out = similarity_mix(*given, index, causal)
    assert out.dtype == dtype
    weight = torch.randn(out.shape, generator=torch.Generator().manual_seed(1)).to(dtype)
    return [out, *torch.autograd.grad((out * weight).sum(), given)]


@needs_compiler
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("levels", [1, 2, 3, 4, 6])
@pytest.mark.parametrize("threads", [1, 2])
def test_the_kernel_equals_the_float64_path(levels, causal, threads):
    tensors, index = drawn(levels, causal)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        found = value_and_gradients(tensors, index, causal, torch.float32)
    finally:
        torch.set_num_threads(before)
    expected = value_and_gradients(tensors, index, causal, torch.float64)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one.double(), other, atol=2e-6, rtol=2e-6)
    if threads == 2:  # however many threads, the same sums
        for one, other in zip(found, value_and_gradients(tensors, index, causal, torch.float32), strict=True):
            assert torch.equal(one, other)


@needs_compiler
def test_the_kernel_is_the_path_taken_and_is_compiled_once(kernels, monkeypatch):
    tensors, index = drawn(3, True)
    value_and_gradients(tensors, index, True, torch.float32)
    (library,) = (kernels / "bbqrec" / "kernels").iterdir()
    native.kernel.cache_clear()
    made = library.stat().st_mtime_ns
    value_and_gradients(tensors, index, True, torch.float32)
    assert library.stat().st_mtime_ns == made
    value_and_gradients(tensors, index.int(), True, torch.float32)
    monkeypatch.setattr("bbqrec.similarity_mix._Native.apply", None)
    with pytest.raises(TypeError):
        similarity_mix(*tensors, index, True)


@needs_compiler
def test_a_library_that_was_cut_off_is_made_again(kernels):
    source = Path(native.__file__).with_name("similarity_mix.c")
    library = native._library(source, shlex.split(os.environ.get("CC") or "cc"))
    library.write_bytes(b"cut off")
    tensors, index = drawn(3, True)
    value_and_gradients(tensors, index, True, torch.float32)
    assert native.kernel("similarity_mix") is not None and library.stat().st_size > 1000


@pytest.mark.parametrize("lacking", ["BBQREC_NATIVE", "CC", "broken", "slow", "home"])
def test_without_a_compiler_the_other_path_gives_the_same(kernels, monkeypatch, caplog, lacking):
    if lacking in ("broken", "slow"):
        compiler = kernels / "cc"
        then = "exit 1" if lacking == "broken" else "sleep 9"
        compiler.write_text(f"#!/bin/sh\nprintf 'cannot \\342 do that' >&2; {then}\n")
        compiler.chmod(0o755)
        monkeypatch.setenv("CC", f"{compiler} -m64")
        run = native.subprocess.run
        monkeypatch.setattr(native.subprocess, "run", lambda *a, **k: run(*a, **{**k, "timeout": 2}))
    elif lacking == "home":
        monkeypatch.delenv("XDG_CACHE_HOME")
        monkeypatch.setattr(native.Path, "expanduser", lambda self: (_ for _ in ()).throw(RuntimeError("no home")))
    else:
        monkeypatch.setenv(lacking, "0" if lacking == "BBQREC_NATIVE" else "no-such-compiler")
    tensors, index = drawn(3, True)
    with caplog.at_level(logging.WARNING):
        found = value_and_gradients(tensors, index, True, torch.float32)
    assert native.kernel("similarity_mix") is None
    said = {"BBQREC_NATIVE": "", "CC": "CC=no-such-compiler is not found", "home": "no home"}
    assert said.get(lacking, "do that" if lacking == "broken" else "cannot") in caplog.text
    for one, other in zip(found, value_and_gradients(tensors, index, True, torch.float64), strict=True):
        torch.testing.assert_close(one.double(), other, atol=2e-6, rtol=2e-6)


@pytest.mark.parametrize("path", ["kernel", "other"])
def test_in_bfloat16_it_is_near(kernels, monkeypatch, path):
    if path == "other":
        monkeypatch.setenv("BBQREC_NATIVE", "0")
    tensors, index = drawn(3, False)
    expected = value_and_gradients(tensors, index, False, torch.float64)
    for one, other in zip(value_and_gradients(tensors, index, False, torch.bfloat16), expected, strict=True):
        assert (one.double() - other).abs().max() < 0.03 * other.abs().max()


@pytest.mark.parametrize("path", ["kernel", "other"])
def test_the_table_is_not_rounded_with_the_values(kernels, monkeypatch, path):
    """1.002 is 1 in bfloat16: the table would have to leave its start before anything changed."""
    if path == "other":
        monkeypatch.setenv("BBQREC_NATIVE", "0")
    (alpha, v, _), index = drawn(3, False)
    ones = torch.ones(ROWS, H * 19)
    with torch.autocast("cpu", torch.bfloat16):
        one, other = (similarity_mix(alpha, v.bfloat16(), table, index) for table in (ones, ones * 1.002))
    assert not torch.equal(one, other)


def test_small_numbers_stay_what_they_are():
    """A library linked with -ffast-math would have the whole process round them to zero."""
    similarity_mix(*drawn(3, True)[0], drawn(3, True)[1], True)
    assert torch.tensor([1e-40]).mul(1.0).item() > 0 and np.float32(1e-40) * np.float32(1) > 0
