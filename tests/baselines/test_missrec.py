"""MISSRec against loops: interests, their attention, the fusion of a candidate's modalities, the loss."""

import math
from dataclasses import replace

import numpy as np
import pytest
import reference as ref
import torch
from held_out import SHARED_ITEMS, held_out_dataset
from reference_models import layer_norm, weights_of

from bbqrec.baselines.interests import Interests, discover_interests, distinct, interest_regularisation
from bbqrec.baselines.missrec import (
    MISSRec,
    MISSRecConfig,
    directions,
    fused_logits,
)
from bbqrec.data import Batch
from bbqrec.schema import PAD

HEADS = 2
BATCH = Batch(
    history=torch.tensor([[3, 5, 1], [8, 2, PAD], [4, PAD, PAD], [6, 7, PAD]]),
    target=torch.tensor([[7], [5], [9], [7]]),
    visible=torch.tensor([[3], [2], [0], [2]]),
)
COUNTED = [([3, 5, 1], 7), ([8, 2], 5), ([6, 7], 7)]


def model(**changes) -> MISSRec:
    torch.manual_seed(2)
    sizes = {"d_model": 6, "heads": HEADS, "d_ff": 5, "max_history": 7, "interest_ratio": 0.3, "temperature": 0.6}
    made = MISSRec(MISSRecConfig(**{**sizes, **changes}), held_out_dataset())
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return made.double().eval()


def numbers_of(made: MISSRec) -> np.ndarray:
    return made.interests.numpy()


def modality_vectors(made: MISSRec) -> np.ndarray:
    """(I, M, E): each adapter's output, or its missing vector."""
    w, features = weights_of(made), held_out_dataset().features
    columns = []
    for name in made.config.features:
        rows = []
        for item, raw in enumerate(w[f"adapters.{name}.features"]):
            own = w[f"adapters.{name}.project.weight"] @ raw + w[f"adapters.{name}.project.bias"]
            rows.append(own if features[name].present[item] else w[f"adapters.{name}.missing"])
        columns.append(rows)
    return np.array(columns).transpose(1, 0, 2)


def attend(w, name, queries, keys):
    def with_one(x):  # a bias is the weight of a constant input
        return np.concatenate([x, np.ones((len(x), 1))], axis=1)

    whole = np.concatenate([w[f"{name}.in_proj_weight"], w[f"{name}.in_proj_bias"][:, None]], axis=1)
    own = dict(zip("qkv", np.split(whole, 3), strict=True)) | {"o": w[f"{name}.out_proj.weight"]}
    scale = 1 / math.sqrt(queries.shape[1] / HEADS)
    shape = (len(queries), len(keys))
    mixed = ref.attention(
        with_one(queries), with_one(keys), own, HEADS, scale, np.zeros((HEADS, *shape)), np.ones(shape)
    )
    return mixed + w[f"{name}.out_proj.bias"]


def block(w, name, x, memory=None):
    def normed(rows, norm):
        return layer_norm(rows, w[f"{name}.{norm}.weight"], w[f"{name}.{norm}.bias"])

    x = normed(x + attend(w, f"{name}.own", x, x), "norm_own")
    if memory is not None:
        x = normed(x + attend(w, f"{name}.cross", x, memory), "norm_cross")
    hidden = x @ w[f"{name}.feed.0.weight"].T + w[f"{name}.feed.0.bias"]
    hidden = np.vectorize(lambda a: a * 0.5 * (1 + math.erf(a / math.sqrt(2))))(hidden)
    return normed(x + hidden @ w[f"{name}.feed.3.weight"].T + w[f"{name}.feed.3.bias"], "norm_feed")


def encoded_interests(made: MISSRec, history: list[int]) -> np.ndarray:
    """The interests of a history, each once, through the encoder."""
    w, z, numbers = weights_of(made), modality_vectors(made), numbers_of(made)
    members: dict[int, list[np.ndarray]] = {}
    for item in range(len(numbers)):
        for m, number in enumerate(numbers[item]):
            members.setdefault(int(number), []).append(z[item, m])
    x = np.array([sum(members[k]) / len(members[k]) for k in sorted({int(k) for i in history for k in numbers[i]})])
    for n in range(made.config.encoder_layers):
        x = block(w, f"encoder.{n}", x)
    return layer_norm(x, w["norm_encoder.weight"], w["norm_encoder.bias"])


def unit(x):
    return x / math.sqrt(sum(x * x))


def reference_scores(made: MISSRec, history: list[int]) -> np.ndarray:
    w, z = weights_of(made), modality_vectors(made)
    memory = encoded_interests(made, history)
    x = np.array([w["ids.weight"][i] + sum(z[i]) + w["position"][t] for t, i in enumerate(history)])
    x = layer_norm(x, w["norm_input.weight"], w["norm_input.bias"])
    for n in range(made.config.decoder_layers):
        x = block(w, f"decoder.{n}", x, memory)
    u = unit(layer_norm(x, w["norm_decoder.weight"], w["norm_decoder.bias"])[-1])
    return np.array(
        [fused(u, w["ids.weight"][i], z[i], float(w["fusion_factor"])) / made.config.temperature for i in range(len(z))]
    )


def fused(u, item_id, modalities, factor: float) -> float:
    """Cosines with the modalities, weighted by their own softmax; then the mean with the ID's, one share each."""
    cosines = [sum(unit(x) * u) for x in modalities]
    below = sum(math.exp(factor * s) for s in cosines)
    content = sum(math.exp(factor * s) / below * s for s in cosines)
    return (sum(unit(item_id) * u) + len(cosines) * content) / (1 + len(cosines))


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("factor", [0.0, 3.0, -2.0])
def test_fusion_equals_the_softmax_over_modalities(count, factor):
    torch.manual_seed(3)
    u, ids = torch.randn(4, 3).double(), torch.randn(5, 3).double()
    vectors = torch.randn(5, count, 3).double()
    found = fused_logits(u, directions(ids, vectors), torch.tensor(factor).double(), 0.7).numpy()
    for p in range(4):
        for c in range(5):
            own = unit(u[p].numpy())
            expected = fused(own, ids[c].numpy(), vectors[c].numpy(), factor) / 0.7
            assert found[p, c] == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("layers", [(1, 1), (2, 3)])
@pytest.mark.parametrize("features", [("text", "image"), ("image",)])
def test_scores_equal_the_loops(layers, features):
    made = model(encoder_layers=layers[0], decoder_layers=layers[1], features=features)
    for history in ([3], [5, 1, 9, 2], [4, 4, 11, 0, 7, 30]):
        found = made.scores(torch.tensor([history]))[0].detach().numpy()
        np.testing.assert_allclose(found, reference_scores(made, history), atol=1e-10)


def test_without_a_fusion_factor_scores_are_products_with_the_item_vectors():
    made = model()
    history = torch.tensor([[5, 1, 9, 2]])
    with torch.no_grad():
        made.fusion_factor.zero_()
        u, _ = made.users(history, made.modality_vectors())
        product = torch.nn.functional.normalize(u, dim=-1) @ made.item_vectors().T
        torch.testing.assert_close(made.scores(history), product / made.config.temperature)


def reference_regularisation(memories) -> float:
    each = []
    for memory in memories:
        pairs = [sum(a * b) for a in memory for b in memory]
        each.append(sum(pairs) / len(pairs) / memory.shape[1])
    return sum(each) / len(each)


def test_interest_regularisation_is_the_mean_product_of_pairs():
    torch.manual_seed(1)
    memory = torch.randn(3, 5, 4).double()
    real = torch.tensor([[True] * 5, [True, True, False, False, False], [True, False, True, True, False]])
    expected = reference_regularisation([m[r].numpy() for m, r in zip(memory, real, strict=True)])
    assert interest_regularisation(Interests(memory, real)).item() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("loss", ["full", "in-batch"])
def test_loss_is_that_of_the_counted_targets_and_of_their_interests(loss):
    made = model(loss=loss, gamma=0.3, decoder_layers=2)
    candidates = sorted({target for _, target in COUNTED}) if loss == "in-batch" else range(37)
    each = []
    for history, target in COUNTED:
        row = reference_scores(made, history)
        each.append(math.log(sum(math.exp(row[c]) for c in candidates)) - row[target])
    regularisation = reference_regularisation([encoded_interests(made, history) for history, _ in COUNTED])
    found, targets = made.loss(BATCH)
    assert targets == 3 and found.item() == pytest.approx(np.mean(each) + 0.3 * regularisation, abs=1e-10)


def test_distinct_keeps_each_number_once():
    rows = torch.tensor([[4, 2, 4, 4, 7, 2], [0, 0, PAD, PAD, 0, 5], [3, PAD, PAD, PAD, PAD, PAD]])
    found = distinct(rows)
    assert found.tolist() == [[7, 4, 2], [5, 0, PAD], [3, PAD, PAD]]


def test_interests_are_the_clusters_of_all_modalities_together():
    """Planted far apart, half as many as there are vectors; the vectors that are missing stand apart by modality."""
    centres = torch.tensor([[0.0, 0], [50, 0], [0, 50]])
    planted = torch.tensor([[0, 1], [1, 1], [2, 0], [0, 2]])
    vectors = centres[planted] + torch.rand(4, 2, 2, generator=torch.Generator().manual_seed(6))
    present = torch.tensor([[True, True], [True, True], [False, True], [True, False]])

    def found(seed: int) -> torch.Tensor:
        return discover_interests(vectors, present, 0.5, 10, torch.Generator().manual_seed(seed))

    def spread(interests: torch.Tensor) -> float:
        groups = [vectors[present & (interests == k)] for k in interests[present].unique()]
        return sum(float((group - group.mean(0)).square().sum()) for group in groups)

    assert torch.equal(found(4), found(4))
    best = min(map(found, range(40)), key=spread)  # k-means itself can end in a worse place
    assert best[present].max() == 2  # ceil(0.5 * 6) interests, 0 .. 2
    assert len(set(zip(best[present].tolist(), planted[present].tolist(), strict=True))) == 3
    assert (best[2, 0].item(), best[3, 1].item()) == (3, 4)


def test_interests_come_from_the_features_alone_and_from_the_seed():
    dataset = held_out_dataset()
    others = replace(dataset, items=(dataset.items + 5) % SHARED_ITEMS)

    def interests(data, seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        return MISSRec(MISSRecConfig(d_model=8), data).interests

    assert torch.equal(interests(dataset, 1), interests(others, 1))
    assert not torch.equal(interests(dataset, 1), interests(dataset, 2))


def test_a_checkpoint_carries_the_interests():
    first, second = model(), model(kmeans_iterations=1)
    second.interests.fill_(0)
    history = torch.tensor([[5, 1, 9]])
    assert not torch.allclose(first.scores(history), second.scores(history))
    second.load_state_dict(first.state_dict())
    torch.testing.assert_close(first.scores(history), second.scores(history))


def test_interest_vectors_follow_the_adapters_but_teach_them_nothing():
    made = model()
    z = made.modality_vectors()
    before = made.interest_vectors(z)
    assert not before.requires_grad
    torch.testing.assert_close(made.interest_vectors(2 * z), 2 * before)


@pytest.mark.parametrize(
    "part", ["encoder.0.own.in_proj_weight", "fusion_factor", "position", "adapters.image.missing"]
)
def test_every_part_learns(part):
    made = model()
    made.loss(replace(BATCH, history=torch.arange(37).view(1, -1)[:, :7].expand(4, -1)))[0].backward()
    assert made.get_parameter(part).grad.abs().max() > 1e-8


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"d_model": 8, "heads": 3}, "heads=3 must divide d_model=8"),
        ({"interest_ratio": 1.5}, "interest_ratio=1.5"),
        ({"features": ()}, "features=()"),
        ({"temperature": 0.0}, "temperature=0.0"),
    ],
)
def test_impossible_configs_are_named(changes, message):
    with pytest.raises(ValueError) as error:
        MISSRecConfig(**changes)
    assert message in str(error.value)
