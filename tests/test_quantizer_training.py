"""Stage 1's loop: what it sees, what it fits, what it reports, and that it goes on exactly where it stopped."""

from dataclasses import replace

import numpy as np
import pytest
import reference as ref
import torch
from held_out import SHARED_ITEMS, held_out_dataset, histories_of

from bbqrec.codebook import ResidualCodebook
from bbqrec.config import QuantizerConfig
from bbqrec.quantizer import Quantizer
from bbqrec.quantizer_training import QuantizerTrainer
from bbqrec.schema import PAD, Dataset, Features

CONFIG = QuantizerConfig(
    levels=2, codes=7, width=8, hidden=9, club_hidden=6, sequence_layers=1, sequence_heads=2, dropout=0.3,
    max_history=6, kmeans_iterations=3, epochs=5, batch_users=4, learning_rate=0.01, gamma_warmup_epochs=3,
    unquantized_share=0.0,
)  # fmt: skip
CPU = torch.device("cpu")


def trainer(dataset: Dataset | None = None, seed: int = 3, **changes) -> QuantizerTrainer:
    return QuantizerTrainer(replace(CONFIG, **changes), dataset or held_out_dataset(), seed, CPU)


def test_held_out_items_never_enter_training(monkeypatch):
    """Neither the windows, nor k-means, nor the variational net: no held-out item is encoded while weights learn."""
    windows, encoded = [], []
    forward, encode = Quantizer.forward, Quantizer.encode

    def watched_forward(self, items, counted, quantize):
        windows.append(items)
        return forward(self, items, counted, quantize)

    def watched_encode(self, items):
        if self.training:
            encoded.append(items)
        return encode(self, items)

    monkeypatch.setattr(Quantizer, "forward", watched_forward)
    monkeypatch.setattr(Quantizer, "encode", watched_encode)
    loop = trainer()
    for _ in range(2):
        loop.train_epoch()
    assert torch.cat([w.flatten() for w in windows]).max() < SHARED_ITEMS
    assert torch.cat(encoded).max() < SHARED_ITEMS and len(encoded) == len(windows) + 1
    assert loop.windows.items.max() < SHARED_ITEMS
    moments = loop.optimizer.state[loop.model.id_embedding.weight]["exp_avg_sq"]
    used = {item for history in histories_of(held_out_dataset()) for item in history[:-2] if len(history) > 3}
    assert moments[SHARED_ITEMS:].abs().max() == 0
    assert set(moments.abs().sum(1).nonzero().flatten().tolist()) == used


def test_an_epoch_predicts_every_training_target_once(monkeypatch):
    counts = []
    forward = Quantizer.forward

    def watched(self, items, counted, quantize):
        assert (items[:, 1:][counted] != PAD).all()
        counts.append(int(counted.sum()))
        return forward(self, items, counted, quantize)

    monkeypatch.setattr(Quantizer, "forward", watched)
    trainer().train_epoch()
    assert sum(counts) == sum(max(len(h) - 3, 0) for h in histories_of(held_out_dataset()))


def states(loop: QuantizerTrainer) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in loop.model.state_dict().items()}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("stop", [1, 3])
@pytest.mark.parametrize("changes", [{}, {"disentangle": False, "shared": False}, {"unquantized_share": 0.5}], ids=str)
def test_stop_and_resume_equals_a_straight_run_bit_for_bit(stop, changes):
    straight, first, second = trainer(**changes), trainer(**changes), trainer(seed=3, **changes)
    reports = [straight.train_epoch() for _ in range(CONFIG.epochs)]
    again = [first.train_epoch() for _ in range(stop)]
    torch.manual_seed(999)  # the process that resumes has drawn other numbers
    second.unpack(first.pack())
    assert second.epoch == stop and not second.finished()
    again += [second.train_epoch() for _ in range(CONFIG.epochs - stop)]
    assert second.finished() and straight.finished()
    assert same(states(straight), states(second))
    for one, other in zip(reports, again, strict=True):
        assert {k: v for k, v in one.items() if k != "seconds"} == {k: v for k, v in other.items() if k != "seconds"}


def test_seeds_differ_and_repeat():
    one, same_seed, other = trainer(), trainer(), trainer(seed=4)
    for loop in (one, same_seed, other):
        loop.train_epoch()
    assert same(states(one), states(same_seed)) and not same(states(one), states(other))


@pytest.mark.parametrize("name", ["alpha", "beta", "gamma", "tau", "id_std", "club_steps", "gamma_warmup_epochs"])
def test_every_weight_changes_what_is_learned(name):
    base, changed = trainer(), trainer(**{name: getattr(CONFIG, name) * 2})
    base.train_epoch(), changed.train_epoch()
    gap = max((states(base)[k] - v).abs().max().item() for k, v in states(changed).items() if v.is_floating_point())
    assert gap > 1e-6


def test_losses_fall_and_the_report_is_whole():
    loop = trainer(epochs=12, dropout=0.0, gamma=0.0)
    reports = [loop.train_epoch() for _ in range(12)]
    for name in ("loss/total", "loss/recon", "loss/rec"):
        assert reports[-1][name] < reports[0][name] * 0.9, name
    last = reports[-1]
    expected = {"seconds", "gamma", "restarted_codes", "codes/colliding_items", "codes/excess"}
    expected |= {f"loss/{n}" for n in ("total", "recon", "rq", "rec", "mim")}
    expected |= {f"club/{m}_{n}" for m in ("text", "image") for n in ("likelihood", "saturation")}
    expected |= {
        f"codes/{n}_{level}_{c}" for n in ("perplexity", "used") for level in (0, 1) for c in CONFIG.components
    }
    assert set(last) == expected and all(np.isfinite(v) for v in last.values())
    codes = loop.model.codes(loop.num_items).codes
    assert (last["codes/colliding_items"], last["codes/excess"]) == ref.collisions(codes)[:2]
    for name, value in last.items():
        if "perplexity" in name:
            assert 1 <= value <= last[name.replace("perplexity", "used")] + 1e-4 <= 7 + 1e-4


def test_codes_start_behind_the_unquantized_epochs(monkeypatch):
    """Before: q is z, L_RQ is 0, the codebook rests. Then k-means of latents that training has moved."""
    started = []
    initialise = ResidualCodebook.initialise

    def watched(self, z, iterations, generator):
        started.append((loop.epoch, z))
        initialise(self, z, iterations, generator)

    monkeypatch.setattr(ResidualCodebook, "initialise", watched)
    loop = trainer(epochs=5, unquantized_share=0.5)
    assert loop.config.unquantized_epochs == 2
    at_first, reports = states(loop), [loop.train_epoch() for _ in range(2)]
    assert torch.equal(at_first["codebook.codebooks"], states(loop)["codebook.codebooks"])
    assert not torch.equal(at_first["id_embedding.weight"], states(loop)["id_embedding.weight"])
    reports += [loop.train_epoch() for _ in range(3)]
    ((epoch, z),) = started
    assert epoch == 2 and z.shape[1] == len(CONFIG.components)
    assert [report["loss/rq"] > 0 for report in reports] == [False, False, True, True, True]
    assert [any(name.startswith("codes/") for name in report) for report in reports] == [False, False, True, True, True]
    assert loop.model.codebook.codebooks.grad is not None


@pytest.mark.parametrize(("epochs", "share", "expected"), [(1, 0.5, 0), (2, 0.5, 1), (15, 0.5, 7), (10, 0.0, 0)])
def test_at_least_the_last_epoch_is_quantized(epochs, share, expected):
    assert QuantizerConfig(epochs=epochs, unquantized_share=share).unquantized_epochs == expected < epochs


def test_gamma_ramps_up():
    loop = trainer(gamma=0.6)
    assert [loop.train_epoch()["gamma"] for _ in range(4)] == pytest.approx([0.2, 0.4, 0.6, 0.6])


def test_the_variational_net_learns_by_likelihood_only():
    """The model's own optimiser does not hold theta, and theta's does not hold the model."""
    loop = trainer()
    held = {id(p) for group in loop.optimizer.param_groups for p in group["params"]}
    theta = {id(p) for group in loop.club_optimizer.param_groups for p in group["params"]}
    named = {id(p): n for n, p in loop.model.named_parameters()}
    assert not held & theta and held | theta == set(named)
    assert {named[p].split(".")[0] for p in theta} == {"variational"}
    still = trainer(club_steps=0)
    before = states(still)
    still.train_epoch()
    assert all(torch.equal(before[n], v) for n, v in states(still).items() if n.startswith("variational"))
    rising = trainer(epochs=10, club_steps=8)
    likelihoods = [rising.train_epoch()["club/text_likelihood"] for _ in range(10)]
    assert likelihoods[-1] > likelihoods[0]


@pytest.mark.parametrize("name", ["text", "image"])
def test_the_variational_net_is_fitted_on_the_specific_given_the_aligned(monkeypatch, name):
    """One batch and steps of no size: the reported likelihood is log q(zs | z) of the items that have the modality."""
    outputs = []
    forward = Quantizer.forward

    def watched(self, items, counted, quantize):
        outputs.append(forward(self, items, counted, quantize))
        return outputs[-1]

    monkeypatch.setattr(Quantizer, "forward", watched)
    loop = trainer(batch_users=99, club_learning_rate=1e-12)
    report = loop.train_epoch()
    (output,) = outputs
    have = output.present[name]
    z, specific = output.z[have, CONFIG.components.index(name)], output.z_specific[name][have]
    gaussian = [part.detach().numpy() for part in loop.model.variational[name](z)]
    expected = ref.log_likelihood(*gaussian, specific.detach().numpy()) + 0.5 * np.log(2 * np.pi)
    assert report[f"club/{name}_likelihood"] == pytest.approx(expected, rel=1e-4)
    assert 0 < have.sum() < len(have)


def test_dead_codes_are_restarted_but_not_behind_the_last_epoch():
    loop = trainer(codes=40, epochs=2)
    first, last = loop.train_epoch(), loop.train_epoch()
    assert first["restarted_codes"] > 0 and last["restarted_codes"] == 0
    assert loop.model.codebook.usage.sum() == 0
    assert trainer(codes=40, restart_dead_codes=False).train_epoch()["restarted_codes"] == 0


def test_restarted_codes_forget_their_moments(monkeypatch):
    """Codes that were in use, so that there is something to forget."""
    restart = ResidualCodebook.restart
    before = {}

    def forced(self, residuals, generator):
        before["moments"] = {n: v.clone() for n, v in loop.optimizer.state[self.codebooks].items() if n != "step"}
        self.usage[:, :, :3] = 0
        return restart(self, residuals, generator)

    monkeypatch.setattr(ResidualCodebook, "restart", forced)
    loop = trainer()
    loop.train_epoch()
    after = loop.optimizer.state[loop.model.codebook.codebooks]
    for name, value in before["moments"].items():
        assert value[:, :, :3].abs().sum() > 0
        assert after[name][:, :, :3].abs().sum() == 0
        assert torch.equal(after[name][:, :, 5:], value[:, :, 5:]) and value[:, :, 5:].abs().sum() > 0


def test_a_modality_that_nobody_has_is_survived():
    dataset = held_out_dataset()
    none = Features(
        values=np.zeros((dataset.num_items, 5), dtype=np.float32), present=np.zeros(dataset.num_items, bool)
    )
    report = trainer(replace(dataset, features={"text": dataset.features["text"], "image": none})).train_epoch()
    assert all(np.isfinite(value) for value in report.values())


def test_a_diverging_run_says_where():
    with pytest.raises(FloatingPointError, match="at epoch 1, step"):
        trainer(alpha=float("inf")).train_epoch()
