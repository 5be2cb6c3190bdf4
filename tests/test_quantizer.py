"""Stage 1 as a whole against its loops, its variants, and gradients that answer to every loss weight."""

from dataclasses import replace

import numpy as np
import pytest
import reference as ref
import reference_models as models
import torch

from bbqrec.config import QuantizerConfig
from bbqrec.losses import total
from bbqrec.quantizer import Quantizer, QuantizerOutput, standardise
from bbqrec.schema import PAD, Features

COUNT, TEXT, IMAGE = 13, 5, 9
CONFIG = QuantizerConfig(
    levels=3, codes=4, width=6, hidden=7, alpha=0.6, beta=0.7, gamma=1.3, tau=0.3, club_hidden=8, sequence_layers=2,
    sequence_heads=3, dropout=0.0, max_history=8,
)  # fmt: skip
WINDOWS = torch.tensor([[3, 5, 3, 7, 11], [6, 0, 5, PAD, PAD], [9, 12, PAD, PAD, PAD]])
COUNTED = torch.tensor([[True, False, True, True], [True, True, False, False], [True, False, False, False]])
ITEMS = [0, 3, 5, 6, 7, 9, 11, 12]  # the distinct items of WINDOWS


def features() -> dict[str, Features]:
    generator = np.random.default_rng(6)
    found = {}
    for name, width, missing in (("text", TEXT, [5, 8]), ("image", IMAGE, [0, 5, 7, 10])):
        present = np.ones(COUNT, dtype=bool)
        present[missing] = False
        values = generator.normal(3, 4, (COUNT, width)).astype(np.float32) * present[:, None]
        found[name] = Features(values=values, present=present)
    return found


def quantizer(**changes) -> Quantizer:
    torch.manual_seed(8)
    config = replace(CONFIG, **changes)
    model = Quantizer(config, COUNT, features()).double()
    for name, parameter in model.named_parameters():
        if "codebook" in name:
            torch.nn.init.normal_(parameter, std=0.8)
        elif parameter.ndim < 2:
            torch.nn.init.normal_(parameter, mean=1.0 if "norm" in name and "weight" in name else 0.0, std=0.3)
    return model


@pytest.mark.parametrize("std", [0.002, 0.5])
def test_ids_start_as_wide_as_told(std):
    model = quantizer(id_std=std)
    assert model.id_embedding is not None
    assert model.id_embedding.weight.std().item() == pytest.approx(std, rel=0.3)


def slow_losses(model: Quantizer) -> dict[str, float]:
    """Every term of Eq. 13 of the batch, item by item."""
    w, config, raw = models.weights_of(model), model.config, features()
    mean = config.reduction == "mean"
    z = models.latents(w, config, raw, ITEMS, training=True)
    groups = [0 if config.shared else m for m in range(len(config.components))]
    books = w["codebook.codebooks"][:, groups]
    q = np.array([[ref.residual_quantization(row[m], books[:, m])[3] for m in range(len(row))] for row in z])
    found = {"recon": 0.0, "rq": ref.rq_loss(z, books, config.alpha, mean)[0], "rec": 0.0, "mim": 0.0}
    for name in config.modalities:
        m, have = config.components.index(name), raw[name].present[ITEMS]
        x = models.standardised(raw[name].values, raw[name].present)[ITEMS]
        read = q[:, m]
        if config.disentangle:
            nothing = np.zeros(config.width)
            specific = models.encoded(w, raw[name], f"modalities.{name}", "specific", ITEMS, True, nothing)
            read = np.concatenate([read, specific], axis=1)
            mu = models.mlp(w, f"variational.{name}.mean", z[have, m])
            spread = np.tanh(models.mlp(w, f"variational.{name}.log_variance", z[have, m]))
            found["mim"] += ref.club(mu, spread, specific[have], mean)
        found["recon"] += ref.reconstruction(x, models.mlp(w, f"modalities.{name}.decoder", read), have, mean)
    if config.contrastive:
        vectors = {item: q[place].ravel() for place, item in enumerate(ITEMS)}
        states, positives = [], []
        for window, counted in zip(WINDOWS.tolist(), COUNTED.tolist(), strict=True):
            real = [item for item in window if item != PAD]
            h = models.sequence_encoder(
                w, np.array([vectors[i] for i in real[:-1]]), config.sequence_layers, config.sequence_heads
            )
            for t in range(len(real) - 1):
                if counted[t]:
                    states.append(h[t])
                    positives.append(real[t + 1])
        batch = [item for window in WINDOWS.tolist() for item in window if item != PAD]
        found["rec"] = ref.contrastive(states, positives, batch, vectors, config.tau)
    return found


VARIANTS = [
    {},
    {"shared": False, "reduction": "sum"},
    {"disentangle": False},
    {"contrastive": False, "components": ("text", "image")},
    {"components": ("id", "image")},
    {"components": ("text",), "levels": 2, "alpha": 0.0},
]


@pytest.mark.parametrize("changes", VARIANTS, ids=str)
def test_losses_equal_the_loops(changes):
    model = quantizer(**changes)
    output = model(WINDOWS, COUNTED)
    expected = slow_losses(model)
    for name, value in output.losses._asdict().items():
        assert value.item() == pytest.approx(expected[name], rel=1e-6), name
        assert (value.item() != 0) == (expected[name] != 0)
    whole = total(output.losses, model.config.beta, model.config.gamma).item()
    rq_vae = expected["recon"]
    assert whole == pytest.approx(
        ref.total(rq_vae, expected["rq"], expected["rec"], expected["mim"], 0.7, 1.3), rel=1e-6
    )


def test_codes_of_the_catalogue_equal_the_loops():
    model = quantizer(shared=False)
    for _ in range(3):
        model(WINDOWS, COUNTED)  # moves the running moments
    model.codebook.usage.zero_()
    w, books = models.weights_of(model), models.weights_of(model)["codebook.codebooks"]
    found = model.codes(COUNT, chunk=5)
    latents = models.latents(w, model.config, features(), list(range(COUNT)), training=False)
    assert found.codes.shape == (COUNT, 3, 3) and found.vectors.shape == (COUNT, 18)
    for item in range(COUNT):
        slow = [ref.residual_quantization(latents[item, m], books[:, m]) for m in range(3)]
        assert found.codes[item].T.tolist() == [s[0].tolist() for s in slow]
        np.testing.assert_allclose(found.vectors[item], np.concatenate([s[3] for s in slow]), atol=1e-6)
    np.testing.assert_allclose(found.codebooks, books)
    assert model.training and model.codebook.usage.sum() == 0


def gradients(model: Quantizer, **weights: float) -> dict[str, torch.Tensor]:
    model.zero_grad(set_to_none=True)
    used = {"beta": CONFIG.beta, "gamma": CONFIG.gamma} | weights
    total(model(WINDOWS, COUNTED).losses, **used).backward()
    return {name: torch.zeros_like(p) if p.grad is None else p.grad.clone() for name, p in model.named_parameters()}


def moved(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor], part: str) -> bool:
    return any((after[name] - value).abs().max() > 1e-9 for name, value in before.items() if part in name)


def test_gradients_answer_to_alpha_beta_and_gamma():
    base = gradients(quantizer())
    commit = gradients(quantizer(alpha=0.9))
    assert moved(base, commit, "behaviour") and moved(base, commit, "id_embedding") and moved(base, commit, "missing")
    assert not moved(base, commit, "codebook") and not moved(base, commit, "decoder")
    contrast = gradients(quantizer(), beta=2.0)
    assert moved(base, contrast, "sequence_encoder") and moved(base, contrast, "behaviour")
    assert moved(base, contrast, "id_embedding") and not moved(base, contrast, "specific")
    apart = gradients(quantizer(), gamma=3.0)
    assert moved(base, apart, "specific") and moved(base, apart, "behaviour")
    assert not moved(base, apart, "sequence_encoder") and not moved(base, apart, "decoder")
    for name in ("beta", "gamma"):  # linear in the weight: g(2w) - g(w) = g(w) - g(0)
        zero, one, two = (gradients(quantizer(), **{name: value}) for value in (0.0, 1.0, 2.0))
        for parameter in zero:
            torch.testing.assert_close(two[parameter] - one[parameter], one[parameter] - zero[parameter])


def test_tau_and_reduction_change_the_terms_they_belong_to():
    base = quantizer()(WINDOWS, COUNTED).losses
    sharp, summed = quantizer(tau=0.1)(WINDOWS, COUNTED).losses, quantizer(reduction="sum")(WINDOWS, COUNTED).losses
    assert sharp.rec != base.rec and sharp[:2] == base[:2]
    assert summed.rq.item() == pytest.approx(6 * base.rq.item()) and summed.mim.item() == pytest.approx(
        6 * base.mim.item()
    )
    assert summed.rec == base.rec and summed.recon > 4 * base.recon


def grads_of(loss: torch.Tensor, model: Quantizer) -> set[str]:
    model.zero_grad(set_to_none=True)
    loss.backward()
    return {name for name, p in model.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}


def test_each_term_trains_the_parts_it_should():
    model = quantizer()

    def output() -> QuantizerOutput:
        return model(WINDOWS, COUNTED)

    recon, rq, rec, mim = (grads_of(getattr(output().losses, name), model) for name in ("recon", "rq", "rec", "mim"))
    assert {n.split(".")[2] for n in recon} == {"behaviour", "specific", "decoder"}
    assert not any("codebook" in n for n in recon | rec | mim) and "codebook.codebooks" in rq
    assert not any("specific" in n or "decoder" in n for n in rq | rec)
    assert {"id_embedding.weight", "modalities.image.missing"} <= rq & rec
    assert any("specific" in n for n in mim) and any("behaviour" in n for n in mim)
    assert not any("missing" in n or "id_embedding" in n for n in recon | mim)  # NOTES 10


def test_what_an_item_lacks_plays_no_part():
    """Raw values under a missing modality are read by nothing; such items share one latent."""
    model, other = quantizer(), quantizer()
    z = model.encode(torch.tensor([0, 5, 7, 10]))
    assert (z[:, 2] == z[0, 2]).all() and (z[0, 1] != z[2, 1]).any()
    raw = {k: Features(values=f.values.copy(), present=f.present) for k, f in features().items()}
    raw["image"].values[[0, 5, 7, 10]] = 77.0
    torch.testing.assert_close(standardise(raw["image"]), standardise(features()["image"]))
    assert [x.item() for x in model(WINDOWS, COUNTED).losses] == [x.item() for x in other(WINDOWS, COUNTED).losses]


def test_standardise_counts_present_items_and_survives_constants():
    raw = features()["image"]
    raw.values[:, 2] = np.where(raw.present, 4.0, 0.0)
    found = standardise(raw).numpy()
    np.testing.assert_allclose(found, models.standardised(raw.values.astype(np.float64), raw.present), atol=1e-6)
    assert (found[~raw.present] == 0).all() and (found[:, 2] == 0).all()
    empty = standardise(Features(values=np.zeros((4, 3), dtype=np.float32), present=np.zeros(4, dtype=bool)))
    assert (empty == 0).all()


def test_the_prediction_at_t_does_not_depend_on_later_items():
    """L_Rec of position 0 alone, with the same distinct items in another later order."""
    first = torch.zeros_like(COUNTED)
    first[:, 0] = True
    swapped = WINDOWS.clone()
    swapped[0] = torch.tensor([3, 5, 11, 3, 7])
    one, other = (quantizer()(w, first).losses.rec.item() for w in (WINDOWS, swapped))
    assert one == pytest.approx(other, rel=1e-12)


def test_variants_have_only_the_parts_they_need():
    def parts(**changes) -> set[str]:
        return {name.split(".")[0] + "." * ("specific" in name) for name in quantizer(**changes).state_dict()}

    full = {"id_embedding", "modalities", "modalities.", "codebook", "sequence_encoder", "variational"}
    assert parts() == full
    assert parts(disentangle=False) == full - {"modalities.", "variational"}
    assert parts(contrastive=False) == full - {"sequence_encoder"}
    assert parts(components=("text", "image")) == full - {"id_embedding"}
    assert parts(components=("id",)) == full - {"modalities", "modalities.", "variational"}
    assert quantizer(shared=False).codebook.codebooks.shape == (3, 3, 4, 6)
    assert quantizer().codebook.codebooks.shape == (3, 1, 4, 6)
    assert not any("image" in name for name in quantizer(components=("id", "text")).state_dict())
