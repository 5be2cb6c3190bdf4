"""The Triton kernels of Eq. 17: on a GPU where there is one, else in Triton's interpreter, and when they are taken."""

import importlib.metadata
import importlib.util
import logging
import os
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import reference
import torch

from bbqrec import similarity_mix as module
from bbqrec.attention import SimilarityTable, similarity_buckets
from bbqrec.similarity_mix import similarity_mix

INSTALLED = importlib.util.find_spec("triton") is not None
VERSION = tuple(map(int, importlib.metadata.version("triton").split(".")[:2])) if INSTALLED else (0, 0)
GPU = torch.cuda.is_available()
DEVICE = torch.device("cuda" if GPU else "cpu")
ROUNDED = 2**-8 if GPU else 2**-7
"""What storing a number as bfloat16 may change, relatively: the interpreter cuts off."""


def lacking(*needed: tuple[bool, str]) -> pytest.MarkDecorator:
    """Skips, with the first of the reasons that holds."""
    reasons = [why for there, why in ((INSTALLED, "triton is not installed"), *needed) if not there]
    return pytest.mark.skipif(bool(reasons), reason=next(iter(reasons), ""))


INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
needs_a_place = lacking(
    (GPU or INTERPRETED, "neither a GPU nor TRITON_INTERPRET=1"),
    (not INTERPRETED or VERSION >= (3, 7), "the interpreter of Triton before 3.7 fails with NumPy 2.4"),
)
needs_gpu = lacking((GPU, "no GPU"))
needs_compiler = lacking((VERSION >= (3, 3), "Triton before 3.3 names its sources' constants in another way"))


@pytest.fixture
def kernels():
    return pytest.importorskip("bbqrec.similarity_triton")


def drawn(sizes, causal: bool, seed: int = 0, padded: int = 0):
    """alpha, v, table, the index and what the result is weighted with; the last items of user 0 are padding."""
    users, heads, items, levels, width, rows = sizes
    generator = np.random.default_rng(seed)
    tokens = items * levels
    alpha = generator.random((users, heads, tokens, tokens))
    item = np.arange(tokens) // levels
    if causal:
        alpha *= item[None, :] <= item[:, None]
    alpha[:1, :, :, tokens - padded * levels :] = 0.0
    v, table = generator.normal(size=(users, heads, tokens, width)), generator.normal(size=(rows, heads * width))
    index, weight = generator.integers(0, rows, (users, items, items)), generator.normal(size=v.shape)
    return tuple(map(torch.from_numpy, (alpha, v, table, index, weight)))


def value_and_gradients(mix, given, index, weight, causal: bool) -> list[torch.Tensor]:
    given = [x.detach().to(DEVICE).requires_grad_() for x in given]
    out = mix(*given, index.to(DEVICE), causal)
    return [x.detach().cpu() for x in (out, *torch.autograd.grad(out, given, weight.to(DEVICE, out.dtype)))]


def expected(given, index, weight, causal: bool) -> list[torch.Tensor]:
    found = reference.similarity_mix(*(x.double().numpy() for x in given), index.numpy(), weight.double().numpy())
    if causal:  # where alpha is promised to be zero, its gradient is nobody's
        levels = given[0].shape[2] // index.shape[1]
        item = np.arange(given[0].shape[2]) // levels
        found[1][:, :, item[:, None] < item[None, :]] = 0.0
    return [torch.from_numpy(x) for x in found]


CASES = {
    "several tiles": ((1, 1, 18, 2, 5, 7), True),  # a program has at most 16 key items at a time
    "more columns and rows than a program's": ((1, 1, 3, 1, 33, 131), False),
    "three levels": ((2, 3, 4, 3, 6, 9), False),
    "causal, three levels": ((3, 2, 5, 3, 7, 4), True),
    "a power of two": ((2, 1, 3, 4, 16, 5), True),
    "five levels": ((2, 2, 3, 5, 3, 4), False),
    "one of each": ((1, 1, 1, 1, 1, 1), False),
}


@needs_a_place
@pytest.mark.parametrize("case", CASES)
def test_value_and_gradients_equal_the_loops(kernels, case):
    sizes, causal = CASES[case]
    *given, index, weight = drawn(sizes, causal)
    given, weight = [x.float() for x in given], weight.float()
    found = value_and_gradients(kernels.TritonMix.apply, given, index, weight, causal)
    for one, other in zip(found, expected(given, index, weight, causal), strict=True):
        assert one.dtype == torch.float32
        torch.testing.assert_close(one.double(), other, atol=3e-6, rtol=3e-6)


@needs_a_place
@pytest.mark.parametrize("causal", [True, False])
def test_several_items_share_a_program_and_several_users_a_part(kernels, monkeypatch, causal):
    """Tiles that do not fill up, parts of unequal size, users fewer than parts."""
    sizes = (3, 1, 5, 2, 3, 6)
    *given, index, weight = drawn(sizes, causal, padded=2)
    given, weight = [x.float() for x in given], weight.float()
    monkeypatch.setattr(kernels, "TILE", 16)  # two items of two levels and four columns
    for parts in (2, 9):
        monkeypatch.setattr(kernels, "PARTS", parts)
        found = value_and_gradients(kernels.TritonMix.apply, given, index, weight, causal)
        for one, other in zip(found, expected(given, index, weight, causal), strict=True):
            torch.testing.assert_close(one.double(), other, atol=3e-6, rtol=3e-6)


@needs_a_place
@pytest.mark.parametrize("lower", [("v",), ("alpha", "v"), ("alpha", "v", "table")], ids="+".join)
def test_bfloat16_is_only_what_comes_in_and_goes_out(kernels, lower):
    """Sums are float32: results are the exact ones of the rounded inputs, rounded once. As in autocast, the format
    of alpha, of v and of the table need not be the same."""
    *given, index, weight = drawn((2, 2, 5, 3, 6, 4), False)
    formats = [torch.bfloat16 if name in lower else torch.float32 for name in ("alpha", "v", "table")]
    given = [x.to(dtype) for x, dtype in zip(given, formats, strict=True)]
    weight = weight.to(torch.bfloat16)
    found = value_and_gradients(kernels.TritonMix.apply, given, index, weight, False)
    exact = expected(given, index, weight, False)
    assert [x.dtype for x in found] == [torch.bfloat16, *formats]
    for one, other in zip(found, exact, strict=True):
        within = ROUNDED if one.dtype == torch.bfloat16 else 3e-6
        torch.testing.assert_close(one.double(), other, atol=3e-6, rtol=within)


@needs_a_place
@pytest.mark.parametrize("causal", [True, False])
def test_all_buckets_and_the_neutral_row(kernels, monkeypatch, causal):
    """With the module's own table and buckets: rows 0..K are learned, the neutral row stays at one."""
    users, heads, items, levels, width, buckets = 2, 2, 6, 2, 3, 4
    real = torch.tensor([[True] * 4 + [False] * 2, [True] * 6])
    index = similarity_buckets(torch.randn(users, items, 5, generator=torch.Generator().manual_seed(1)), real, buckets)
    assert set(index.flatten().tolist()) >= {buckets, buckets + 1}
    alpha, v, _, _, weight = drawn((users, heads, items, levels, width, buckets + 2), causal, padded=2)
    alpha, v, weight = alpha.float(), v.float(), weight.float()
    similarity = SimilarityTable(buckets, heads, width, "uniform").to(DEVICE)
    with torch.no_grad():
        similarity.delta.copy_(torch.randn(similarity.delta.shape, generator=torch.Generator().manual_seed(2)))
    table = similarity.table.detach().cpu()
    assert torch.equal(table[-1], torch.ones(heads * width))
    monkeypatch.setattr("bbqrec.attention.similarity_mix", kernels.TritonMix.apply)
    out = similarity(alpha.to(DEVICE), v.to(DEVICE), index.to(DEVICE), causal)
    (out * weight.to(DEVICE)).sum().backward()
    wanted, _, _, by_table = expected((alpha, v, table), index, weight, causal)
    torch.testing.assert_close(out.detach().cpu().double(), wanted, atol=3e-6, rtol=3e-6)
    torch.testing.assert_close(similarity.delta.grad.cpu().double(), by_table[:-1], atol=3e-6, rtol=3e-6)


@needs_a_place
def test_values_that_are_not_contiguous(kernels):
    *given, index, weight = drawn((2, 3, 4, 2, 5, 7), False)
    alpha, v, table = (x.float() for x in given)
    turned = v.transpose(1, 2).contiguous().transpose(1, 2)
    above = weight.float().transpose(1, 2).contiguous().transpose(1, 2)
    assert not turned.is_contiguous() and not above.is_contiguous()
    found = value_and_gradients(kernels.TritonMix.apply, (alpha, turned, table), index, above, False)
    for one, other in zip(found, expected((alpha, v, table), index, weight.float(), False), strict=True):
        torch.testing.assert_close(one.double(), other, atol=3e-6, rtol=3e-6)


@needs_a_place
def test_causal_reads_nothing_after_the_query(kernels):
    """The promise is used, and what is skipped has a gradient of zero, as on every path."""
    *given, index, weight = drawn((1, 1, 5, 2, 3, 4), True)
    given, weight = [x.float() for x in given], weight.float()
    broken = given[0].clone()
    item = torch.arange(10) // 2
    broken[:, :, item[:, None] < item[None, :]] = torch.nan
    found = value_and_gradients(kernels.TritonMix.apply, (broken, *given[1:]), index, weight, True)
    for one, other in zip(found, expected(given, index, weight, True), strict=True):
        torch.testing.assert_close(one.double(), other, atol=3e-6, rtol=3e-6)


@needs_gpu
@pytest.mark.parametrize("causal", [True, False])
def test_equal_inputs_give_equal_bits_at_the_paper_s_sizes(kernels, causal):
    *given, index, weight = drawn((96, 6, 20, 3, 64, 102), causal)
    given, weight = [x.float() for x in given], weight.float()
    first, second = (value_and_gradients(kernels.TritonMix.apply, given, index, weight, causal) for _ in range(2))
    exact = value_and_gradients(module._ByQuery.apply, [x.double() for x in given], index, weight.double(), causal)
    for one, other, wanted in zip(first, second, exact, strict=True):
        assert torch.equal(one, other)
        assert (one.double() - wanted).abs().max() < 1e-5 * wanted.abs().max()


@needs_compiler
@pytest.mark.slow
def test_it_compiles_for_gpus_and_adds_without_atomics():
    """The interpreter takes more than the compiler does. In a process of its own, without the interpreter."""
    program = """
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from bbqrec import similarity_triton as kernels

sizes = {"LEVELS": 3, "WIDTH": 40, "CAUSAL": True}
tiles = {"_forward": (8, 4, 32), "_backward": (4, 4, 64), "_backward_table": (16, 128, 32)}
for name, tile in tiles.items():
    function = getattr(kernels, name)
    arguments = function.arg_names
    constants = sizes | dict(zip(arguments[-3:], tile))
    types = {a: "*fp32" for a in arguments} | {"v": "*bf16", "grad": "*bf16", "index": "*i64"}
    types |= {a: "i32" for a in ("users", "heads", "items", "rows")} | {a: "constexpr" for a in constants}
    source = ASTSource(
        fn=function,
        signature={a: types[a] for a in arguments},
        constexprs={(arguments.index(a),): value for a, value in constants.items()},
    )
    ptx = triton.compile(source, target=GPUTarget("cuda", 80, 32)).asm["ptx"]
    assert "st.global" in ptx and "atom." not in ptx and "red.global" not in ptx
    print(name)
"""
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment)
    assert done.stdout.split() == ["_forward", "_backward", "_backward_table"], done.stderr


class Pretended(torch.Tensor):
    """A tensor in the CPU's memory that says it is on a GPU."""

    device = property(lambda self: torch.device("cuda", 0))


def on_gpu(x: torch.Tensor) -> torch.Tensor:
    return x.cuda() if GPU else x.as_subclass(Pretended)


@pytest.fixture
def chosen(monkeypatch):
    """Whether the entry point takes the kernels' path. Stand-ins say which was taken."""
    taken = []

    def path(name: str) -> type:
        apply = staticmethod(lambda alpha, v, *rest: (taken.append(name), v)[1])
        return type(name, (torch.autograd.Function,), {"apply": apply})

    monkeypatch.delenv("BBQREC_NATIVE", raising=False)
    monkeypatch.setitem(sys.modules, "bbqrec.similarity_triton", SimpleNamespace(TritonMix=path("triton")))
    for name in ("_Native", "_ByQuery"):
        monkeypatch.setattr(module, name, path("other"))
    monkeypatch.setattr(module, "_agrees", lambda mix, device: True)
    module._triton_mix.cache_clear()

    def called(convert=on_gpu, dtype=torch.float32, sizes=(1, 1, 2, 2, 3, 4)) -> bool:
        *given, index, _ = drawn(sizes, False)
        similarity_mix(*(convert(x.to(dtype)) for x in given), convert(index))
        return taken.pop() == "triton"

    yield called
    module._triton_mix.cache_clear()


def test_the_kernels_are_taken_on_gpus(chosen):
    assert chosen() and chosen(dtype=torch.bfloat16)
    assert not chosen(dtype=torch.float64)
    assert not chosen(convert=lambda x: x)
    assert not chosen(sizes=(1, 1, 2, 17, 3, 4))
    assert not chosen(sizes=(0, 1, 2, 2, 3, 4)) and not chosen(sizes=(1, 1, 2, 2, 0, 4))


def test_the_environment_turns_them_off(chosen, monkeypatch):
    monkeypatch.setenv("BBQREC_NATIVE", "0")
    assert not chosen()


def test_triton_that_cannot_be_imported_is_no_failure(chosen, monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "bbqrec.similarity_triton", None)
    with caplog.at_level(logging.WARNING):
        assert not chosen() and not chosen()
    assert len(caplog.records) == 1 and "slower path" in caplog.text  # looked for once


def test_kernels_that_fail_or_err_are_not_taken(chosen, monkeypatch, caplog):
    monkeypatch.setattr(module, "_agrees", lambda mix, device: False)
    assert not chosen() and "not right" in caplog.text
    module._triton_mix.cache_clear()
    monkeypatch.setattr(module, "_agrees", lambda mix, device: 1 / 0)
    assert not chosen() and "ZeroDivisionError" in caplog.text


def test_the_trial_tells_right_from_wrong():
    class Wrong(module._ByQuery):
        @staticmethod
        def backward(ctx, grad):
            by_alpha, by_v, by_table, *rest = module._ByQuery.backward(ctx, grad)
            return by_alpha, by_v, by_table.flip(0), *rest

    with torch.inference_mode(), torch.autocast(DEVICE.type, torch.bfloat16):
        assert module._agrees(module._ByQuery, DEVICE)
        assert not module._agrees(Wrong, DEVICE)


@needs_a_place
def test_the_entry_point_reaches_the_kernels(kernels, monkeypatch):
    """All of it: the trial, the choice, the sum and its gradients."""
    monkeypatch.delenv("BBQREC_NATIVE", raising=False)
    agrees = module._agrees
    monkeypatch.setattr(module, "_agrees", lambda mix, device: agrees(mix, DEVICE))
    module._triton_mix.cache_clear()
    try:
        assert module._triton_mix(torch.device("cuda", 0)) is kernels.TritonMix
        *given, index, weight = drawn((2, 3, 4, 2, 5, 7), True)
        given = [on_gpu(x.float()).requires_grad_() for x in given]
        out = similarity_mix(*given, on_gpu(index.int()), True)
        assert type(out.grad_fn).__name__.startswith("TritonMix")
        found = [out, *torch.autograd.grad(out, given, on_gpu(weight.float()))]
        for one, other in zip(
            found, expected([x.detach().cpu() for x in given], index, weight.float(), True), strict=True
        ):
            torch.testing.assert_close(torch.Tensor(one.detach().cpu()).double(), other, atol=3e-6, rtol=3e-6)
    finally:
        module._triton_mix.cache_clear()
