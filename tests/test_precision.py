"""Training in bfloat16: where it is chosen, what stays float32, and that it learns the same."""

import warnings

import numpy as np
import pytest
import torch
from test_recommender_training import CPU, trainer

from bbqrec import native, precision
from bbqrec.attention import similarity_buckets
from bbqrec.precision import products_in, resolved

FORMS = pytest.mark.parametrize(
    "form",
    [{"history": "prefix"}, {"history": "packed", "objective": "children", "label_smoothing": 0.0}],
    ids=["prefix", "packed"],
)


@pytest.mark.parametrize(("able", "chosen"), [(True, "bfloat16"), (False, "float32")])
def test_auto_takes_what_the_hardware_has(monkeypatch, able, chosen):
    monkeypatch.setattr(precision.torch.cpu, "_is_avx512_bf16_supported", lambda: able)
    assert resolved("auto", CPU) == chosen
    assert resolved("float32", CPU) == "float32" and resolved("bfloat16", CPU) == "bfloat16"
    monkeypatch.setattr(precision.torch.cuda, "is_bf16_supported", lambda including_emulation: able)
    assert resolved("auto", torch.device("cuda")) == chosen


@FORMS
def test_it_learns_the_same(form):
    curves, steps = [], np.arange(7)
    for name in ("float32", "bfloat16"):
        loop = trainer(precision=name, dropout=0.0, **form)
        assert loop.precision == name
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # mixed number formats would make torch leave its fast paths
            curves.append([float(loop.step(steps)[0]) for _ in range(12)])
        assert all(p.dtype == torch.float32 for p in loop.model.parameters())
    assert curves[0][-1] < curves[0][0] * 0.9
    assert curves[0] != curves[1]
    np.testing.assert_allclose(curves[1], curves[0], rtol=0.03)


@FORMS
def test_with_and_without_the_kernel_it_learns_the_same(form, monkeypatch):
    curves, steps = [], np.arange(7)
    for wanted in ("1", "0"):
        monkeypatch.setenv("BBQREC_NATIVE", wanted)
        native.kernel.cache_clear()
        loop = trainer(precision="float32", **form)
        curves.append([float(loop.step(steps)[0]) for _ in range(12)])
    native.kernel.cache_clear()
    assert curves[0][-1] < curves[0][0] * 0.9
    np.testing.assert_allclose(curves[1], curves[0], rtol=1e-3)


@FORMS
def test_residual_connections_and_decoding_stay_float32(form):
    loop = trainer(precision="bfloat16", **form)
    seen = []
    for stack in (loop.model.encoder, loop.model.decoder):
        for block in stack:
            block.norm_feed.register_forward_pre_hook(lambda _, given: seen.append(given[0].dtype))
    loop.step(np.arange(7))
    assert seen and set(seen) == {torch.float32}
    linear = []
    loop.model.encoder[0].wi.register_forward_hook(lambda _, given, out: linear.append(out.dtype))
    loop.step(np.arange(7))
    assert linear == [torch.bfloat16]
    loop.train_epoch()
    linear.clear()
    loop.judge("valid")
    assert linear and set(linear) == {torch.float32}


def test_similarity_buckets_are_those_that_decoding_uses():
    generator = torch.Generator().manual_seed(0)
    v = torch.randn(4, 9, 48, generator=generator) + torch.randn(48, generator=generator)
    real = torch.ones(4, 9, dtype=torch.bool)
    plain = similarity_buckets(v, real, 100)
    with products_in("bfloat16", CPU):
        assert torch.equal(similarity_buckets(v, real, 100), plain)
    assert len(plain.unique()) > 15
