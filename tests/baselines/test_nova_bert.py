"""NOVA-BERT against the loops, and what its side information may touch."""

import math

import numpy as np
import pytest
import torch
from held_out import held_out_dataset
from reference_models import cloze_scores, layer_norm, sequence_layer, standardised, weights_of

from bbqrec.baselines.nova_bert import NovaBERT, NovaBERTConfig
from bbqrec.data import Batch
from bbqrec.schema import PAD

LAYERS, HEADS, WIDTH = 3, 2, 6
MODALITIES = ("text", "image")
DATASET = held_out_dataset()


def model(**changes) -> NovaBERT:
    torch.manual_seed(2)
    sizes = {"d_model": WIDTH, "layers": LAYERS, "heads": HEADS, "d_ff": 5, "max_history": 5}
    made = NovaBERT(NovaBERTConfig(**(sizes | changes)), DATASET)
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return made.double().eval()


def side_streams(w, history, modalities):
    """(T, S, W): each modality of each place, or what hides it, and the position."""
    rows = []
    for place, item in enumerate(history):
        streams = []
        for m, name in enumerate(modalities):
            raw = DATASET.features[name]
            if item is None:
                streams.append(w["feature_masks"][m])
            elif raw.present[item]:
                x = standardised(raw.values, raw.present)[item]
                streams.append(w[f"features.{name}.project.weight"] @ x + w[f"features.{name}.project.bias"])
            else:
                streams.append(w[f"features.{name}.missing"])
        streams.append(w["position"][len(history) - 1 - place])
        norms = [(w[f"side_norms.{s}.weight"], w[f"side_norms.{s}.bias"]) for s in range(len(streams))]
        rows.append([layer_norm(x[None], *norm)[0] for x, norm in zip(streams, norms, strict=True)])
    return np.array(rows)


def gated(w, name, normed, side):
    """Sec. 3.5, place by place: sum_i G_i f_i, G = softmax(F W_F)."""
    out = []
    for own, others in zip(normed, side, strict=True):
        streams = [own, *others]
        weights = [math.exp(sum(x * c for x, c in zip(f, w[f"{name}.gate.weight"][0], strict=True))) for f in streams]
        out.append(sum(g / sum(weights) * f for g, f in zip(weights, streams, strict=True)))
    return np.array(out)


def reference_scores(made: NovaBERT, history: list[int | None], place: int, modalities=MODALITIES) -> np.ndarray:
    """Scores of the hidden item at a place; None is hidden."""
    w = weights_of(made)
    x = np.array([w["mask"] if item is None else w["ids.weight"][item] for item in history])
    side = side_streams(w, history, modalities)
    for n in range(LAYERS):
        name = f"layers.{n}"
        x = sequence_layer(w, f"{name}.layer", x, HEADS, False, lambda normed, n=name: gated(w, n, normed, side))
    h = layer_norm(x, w["norm.weight"], w["norm.bias"])
    return cloze_scores(w, h[place], w["ids.weight"])


@pytest.mark.parametrize("modalities", [MODALITIES, ("image",), ()])
def test_scores_equal_the_loops(modalities):
    made = model(features=modalities)
    lacking = next(i for i in range(17) if not DATASET.features["image"].present[i])
    for history in ([3], [5, 1, lacking, 2], [4, 4, 11, 0, 7]):
        found = made.scores(torch.tensor([history]))[0].detach().numpy()
        expected = reference_scores(made, [*history, None], len(history), modalities)
        np.testing.assert_allclose(found, expected, atol=1e-5)  # features are standardised in float32


def test_loss_is_the_mean_over_the_hidden_items():
    """Rows of which the last item is hidden, one of them padded."""
    made = model(last_share=0.999)
    none = torch.zeros(2, 1, dtype=torch.long)
    batch = Batch(history=torch.tensor([[3, 5, 1, 7], [8, 2, PAD, PAD]]), target=none, visible=none)
    expected = []
    for history, target in (([3, 5, 1, None], 7), ([8, None], 2)):
        row = reference_scores(made, history, len(history) - 1)
        expected.append(math.log(np.exp(row).sum()) - row[target])
    torch.manual_seed(0)
    loss, targets = made.loss(batch)
    assert targets == 2 and loss.item() == pytest.approx(np.mean(expected), abs=1e-5)


def test_neither_a_hidden_item_nor_its_features_are_read():
    made = model()
    history, hidden = torch.tensor([[3, 5, 1, 7]]), torch.tensor([[False, True, False, False]])
    with torch.no_grad():
        before = made.states(history, hidden)
        for place in range(4):
            changed = history.clone()
            changed[0, place] = 9
            moved = (made.states(changed, hidden)[0, 1] - before[0, 1]).abs().max() > 1e-6
            assert bool(moved) == (place != 1)
        for name in MODALITIES:
            made.features[name].features[5] += 1
        assert torch.equal(made.states(history, hidden), before)


def test_layers_start_as_averages():
    for layer in NovaBERT(NovaBERTConfig(d_model=6), DATASET).layers:
        weight = layer.layer.qkv.weight
        assert torch.equal(weight[12:], torch.eye(6)) and torch.equal(layer.layer.out.weight, torch.eye(6))


def test_side_information_is_non_invasive():
    """With equal attention everywhere it changes nothing; positions are side information, too."""
    made = model()
    history, hidden = torch.tensor([[3, 5, 1, 7]]), torch.tensor([[False, False, False, True]])
    with torch.no_grad():
        for attention_is_free in (True, False):
            if not attention_is_free:
                for layer in made.layers:
                    layer.layer.qkv.weight[: 2 * WIDTH] = 0
                    layer.layer.qkv.bias[: 2 * WIDTH] = 0
            before = made.states(history, hidden)
            for change in (*(made.features[name].features for name in MODALITIES), made.feature_masks, made.position):
                kept = change.clone()
                change += torch.randn_like(change)
                moved = (made.states(history, hidden) - before).abs().max() > 1e-6
                assert bool(moved) == attention_is_free
                change.copy_(kept)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"d_model": 8, "heads": 3}, "heads=3 must divide d_model=8"),
        ({"hidden_share": 0.0}, "hidden_share=0.0"),
        ({"last_share": 1.0}, "last_share=1.0"),
    ],
)
def test_bad_sizes_and_shares(wrong, said):
    with pytest.raises(ValueError, match=said):
        NovaBERTConfig(**wrong)
