"""LETTER's terms against loops, what each of them trains, its last codes, and the temperature of its generator."""

from dataclasses import asdict, replace

import numpy as np
import pytest
import reference as ref
import reference_letter as slow
import reference_models as models
import torch
from held_out import held_out_dataset
from reference_decoding import among_children
from test_generation import POPULARITY, crowded
from test_recommender import CONFIG as GENERATOR
from test_recommender import HISTORY, TARGETS, N, catalogue, lengths

from bbqrec.baselines import letter
from bbqrec.baselines.letter import (
    LetterQuantizer,
    LetterQuantizerConfig,
    LetterRecommenderConfig,
    collaborative_loss,
    diversity_loss,
    others_of_cluster,
    total,
)
from bbqrec.config import RecommenderConfig
from bbqrec.data import Batch
from bbqrec.decoding import DeviceTrie
from bbqrec.recommender import Recommender
from bbqrec.schema import PAD
from bbqrec.semantic_ids import build_trie, collisions
from bbqrec.trie_likelihood import TrieLikelihood

CONFIG = LetterQuantizerConfig(
    levels=3, codes=6, width=5, hidden=7, alpha=0.6, collaborative=0.7, diversity=0.3, clusters=2, epsilon=0.2,
    sinkhorn_iterations=400, kmeans_iterations=3, batch_items=8,
)  # fmt: skip
TEACHER = 4
ITEMS = torch.tensor([0, 3, 4, 8, 11, 12, 20, 25])  # with and without text


def tokenizer(**changes) -> LetterQuantizer:
    torch.manual_seed(8)
    dataset = held_out_dataset()
    teacher = torch.from_numpy(np.random.default_rng(4).normal(size=(dataset.num_items, TEACHER)))
    model = LetterQuantizer(replace(CONFIG, **changes), dataset, teacher).double()
    for name, parameter in model.named_parameters():
        if "codebook" in name:
            torch.nn.init.normal_(parameter, std=0.8)
        elif parameter.ndim < 2:
            torch.nn.init.normal_(parameter, std=0.3)
    model.cluster(torch.Generator().manual_seed(1))
    return model


def next_code(cluster: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
    """A positive that nothing is drawn for."""
    return (chosen + 1) % len(cluster)


def test_collaborative_loss_equals_the_loops():
    generator = np.random.default_rng(0)
    q, h = generator.normal(size=(5, 3)), generator.normal(size=(5, 3))
    found = collaborative_loss(torch.from_numpy(q), torch.from_numpy(h)).item()
    assert found == pytest.approx(slow.collaborative(q, h), rel=1e-12)
    assert found != pytest.approx(slow.collaborative(h, q), rel=1e-3)  # the negatives are the teacher's vectors


def test_diversity_loss_equals_the_loops():
    book = np.random.default_rng(1).normal(size=(7, 3))
    chosen, positive = [2, 0, 6, 2], [3, 5, 1, 0]
    found = diversity_loss(torch.from_numpy(book), torch.tensor(chosen), torch.tensor(positive)).item()
    assert found == pytest.approx(slow.diversity(book, chosen, positive), rel=1e-12)


def test_diversity_pulls_the_positive_and_pushes_the_rest():
    """A step down the gradient moves the positive closer, the others away, and leaves codes nobody chose in place."""
    book = torch.from_numpy(np.random.default_rng(1).normal(size=(7, 3))).requires_grad_()
    diversity_loss(book, torch.tensor([2]), torch.tensor([5])).backward()
    toward = -(book.grad @ book[2].detach())
    assert toward[5] > 0 and all(toward[j] < 0 for j in (0, 1, 3, 4, 6))


def test_positives_are_the_other_codes_of_the_cluster_alike():
    cluster = torch.tensor([1, 0, 2, 1, 1, 0, 2])
    torch.manual_seed(3)
    drawn = others_of_cluster(cluster, torch.arange(7).repeat_interleave(3000)).view(7, 3000)
    for code, found in enumerate(drawn.tolist()):
        others = [j for j in range(7) if cluster[j] == cluster[code] and j != code]
        counts = [found.count(j) for j in others]
        assert sum(counts) == 3000 and min(counts) > 3000 / len(others) - 150


def reference_terms(model: LetterQuantizer) -> tuple[dict[str, float], np.ndarray]:
    """Every term of a batch, and its codes."""
    w, config = models.weights_of(model), model.config
    own = {name.removeprefix("rq_vae."): value for name, value in w.items()}
    raw = held_out_dataset().features
    items = ITEMS.tolist()
    z = models.latents(own, config.rq_vae, raw, items, training=True)[:, 0]
    books = own["codebook.codebooks"][:, 0]
    codes, residuals, codewords = slow.quantized(z, books, config.epsilon, config.sinkhorn_iterations)
    q = codewords.sum(1)
    x = models.standardised(raw["text"].values, raw["text"].present)[items]
    x_hat = models.mlp(own, "modalities.text.decoder", q)
    gaps = (residuals - codewords) ** 2
    return {
        "recon": ref.reconstruction(x, x_hat, raw["text"].present[items], True),
        "rq": sum((1 + config.alpha) * gap.mean() for row in gaps for gap in row) / len(items),
        "collaborative": slow.collaborative(q @ w["align.weight"].T, w["teacher"][items]),
        "diversity": sum(
            slow.diversity(books[level], codes[:, level], (codes[:, level] + 1) % config.codes)
            for level in range(config.levels)
        ),
    }, codes


@pytest.mark.parametrize("changes", [{}, {"levels": 1, "codes": 9}, {"alpha": 0.0, "codes": 11}], ids=str)
def test_all_terms_of_a_batch_equal_the_loops(monkeypatch, changes):
    """The teacher's vectors are those of the items; some items have no text; the last codes are a transport's."""
    monkeypatch.setattr(letter, "others_of_cluster", next_code)
    model = tokenizer(**changes)
    losses, quantized = model(ITEMS)
    expected, codes = reference_terms(model)
    assert quantized.codes[:, :, 0].tolist() == codes.tolist()
    assert {name: value.item() for name, value in losses._asdict().items()} == pytest.approx(expected, rel=1e-6)
    whole = expected["recon"] + expected["rq"] + 0.7 * expected["collaborative"] + 0.3 * expected["diversity"]
    assert total(losses, CONFIG.collaborative, CONFIG.diversity).item() == pytest.approx(whole, rel=1e-6)
    text = held_out_dataset().features["text"].present[ITEMS]
    assert 0 < text.sum() < len(text)


def gradients(model: LetterQuantizer, **weights: float) -> dict[str, torch.Tensor]:
    model.zero_grad(set_to_none=True)
    torch.manual_seed(2)  # of the positives
    used = {"collaborative": 0.7, "diversity": 0.3} | weights
    total(model(ITEMS)[0], **used).backward()
    return {name: torch.zeros_like(p) if p.grad is None else p.grad.clone() for name, p in model.named_parameters()}


def moved(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> set[str]:
    return {name for name, value in before.items() if (after[name] - value).abs().max() > 1e-9}


def test_gradients_answer_to_every_weight():
    base = gradients(tokenizer())
    encoder = {name for name in base if "behaviour" in name or "missing" in name}
    bias = "rq_vae.modalities.text.behaviour.map.2.bias"  # has no effect in front of the batch's normalisation
    assert moved(base, gradients(tokenizer(alpha=0.9))) == encoder - {bias}
    assert moved(base, gradients(tokenizer(), collaborative=2.0)) == (encoder | {"align.weight"}) - {bias}
    assert moved(base, gradients(tokenizer(), diversity=2.0)) == {"rq_vae.codebook.codebooks"}
    for name in ("collaborative", "diversity"):  # linear in the weight: g(2w) - g(w) = g(w) - g(0)
        zero, one, two = (gradients(tokenizer(), **{name: value}) for value in (0.0, 1.0, 2.0))
        for parameter in zero:
            torch.testing.assert_close(two[parameter] - one[parameter], one[parameter] - zero[parameter])


def test_every_level_is_diversified():
    model = tokenizer()
    model(ITEMS)[0].diversity.backward()
    assert (model.codebook.codebooks.grad.abs().sum((1, 2, 3)) > 0).all()


def test_clusters_are_those_of_each_level_s_codes():
    model = tokenizer(codes=8, clusters=4)
    planted = torch.tensor([[0, 1, 2, 3, 0, 1, 2, 3], [3, 3, 1, 1, 0, 0, 2, 2], [0, 0, 1, 1, 2, 3, 2, 3]])
    places = 30 * torch.eye(4, 5, dtype=torch.float64)
    with torch.no_grad():
        model.codebook.codebooks[:, 0] = places[planted] + 0.1 * torch.randn(3, 8, 5, dtype=torch.float64)
    model.cluster(torch.Generator().manual_seed(7))
    for found, expected in zip(model.clusters, planted, strict=True):
        torch.testing.assert_close(found[:, None] == found, expected[:, None] == expected)


def test_the_last_codes_of_a_batch_are_about_uniform():
    """Nearest codes are not: a codebook far from all residuals but for one code."""
    model = tokenizer(codes=4, clusters=2, epsilon=0.003)
    with torch.no_grad():
        model.codebook.codebooks[-1] *= 9
        model.codebook.codebooks[-1, 0, 2] = 0
    items = torch.arange(36)
    codes = model(items)[1].codes[:, :, 0]
    assert torch.bincount(codes[:, -1], minlength=4).max() <= 15
    nearest = model.codebook(model.rq_vae.encode(items)).codes[:, :, 0]
    assert torch.bincount(nearest[:, -1], minlength=4).max() >= 30
    assert torch.equal(codes[:, :-1], nearest[:, :-1])


@pytest.mark.parametrize(("levels", "codes"), [(2, 4), (3, 4), (2, 12), (1, 5)])
def test_codes_of_the_catalogue(levels, codes):
    """Nearest codes, moved at the last level under prefixes that had a collision, and v is what the codes spell."""
    model = tokenizer(levels=levels, codes=codes)
    for _ in range(3):
        model(ITEMS)  # moves the running moments
    count = held_out_dataset().num_items
    found = model.codes(count)
    assert model.training and found.codes.shape == (count, levels, 1)
    books = models.weights_of(model)["rq_vae.codebook.codebooks"][:, 0]
    np.testing.assert_array_equal(found.raw, model.rq_vae.codes(count).codes)
    spelt = [sum(books[level, code] for level, code in enumerate(row)) for row in found.codes[:, :, 0]]
    np.testing.assert_allclose(found.vectors, spelt)
    np.testing.assert_array_equal(found.codes[:, :-1], found.raw[:, :-1])
    prefixes: dict[tuple, list[int]] = {}
    for item, row in enumerate(found.raw[:, :-1, 0].tolist()):
        prefixes.setdefault(tuple(row), []).append(item)
    moved = 0
    for items in prefixes.values():
        before, after = found.raw[items, -1, 0].tolist(), found.codes[items, -1, 0].tolist()
        if len(set(before)) == len(items):
            assert before == after
        else:
            moved += before != after
            shares = [after.count(code) for code in range(codes)]
            assert max(shares) - min(shares) <= 1
    crowds = sum(max(len(items) - codes, 0) for items in prefixes.values())
    assert moved and collisions(found.codes).excess == crowds < collisions(found.raw).excess


def test_items_without_text_share_a_latent_and_no_code():
    absent = np.flatnonzero(~held_out_dataset().features["text"].present)
    model = tokenizer(codes=12)
    z = model.rq_vae.encode(torch.from_numpy(absent))
    assert len(absent) > 2 and (z == z[0]).all()
    found = model.codes(held_out_dataset().num_items)
    assert len(np.unique(found.raw[absent], axis=0)) == 1 and len(np.unique(found.codes[absent], axis=0)) == len(absent)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"clusters": 9, "codes": 17}, "clusters=9 of codes=17"),
        ({"epsilon": 0.0}, "epsilon=0.0"),
        ({"passes": 0}, "passes=0"),
        ({"batch_items": 0}, "batch_items=0"),
        ({"diversity": -0.1}, r"diversity=-0\.1"),
        ({"collaborative": -0.1}, "collaborative"),
    ],
)
def test_impossible_values_are_refused_by_name(fields, said):
    with pytest.raises(ValueError, match=said):
        LetterQuantizerConfig(**fields)


def test_a_temperature_is_above_zero():
    with pytest.raises(ValueError, match=r"temperature=0\.0"):
        LetterRecommenderConfig(temperature=0.0)


def generator(temperature: float | None, objective: str) -> Recommender:
    """The model of tests/test_recommender.py with a temperature; None is that of the base class."""
    torch.manual_seed(5)
    fields = asdict(GENERATOR)
    fields |= {"similarity": False, "history": "packed", "objective": objective}
    config = (
        RecommenderConfig(**fields)
        if temperature is None
        else LetterRecommenderConfig(**fields, temperature=temperature)
    )
    model = Recommender(config, torch.from_numpy(crowded()), torch.from_numpy(catalogue()[1]), N).double()
    for name, parameter in model.named_parameters():
        torch.nn.init.normal_(parameter, mean=1.0 if "norm" in name else 0.0, std=0.4)
    return model.eval()


BATCH = Batch(history=HISTORY, target=TARGETS, visible=lengths(HISTORY))


@pytest.mark.parametrize("temperature", [0.5, 3.0])
def test_codes_are_predicted_at_a_temperature(temperature):
    model = generator(temperature, "codes")
    logits = model(BATCH).detach().numpy()
    expected = ref.composite_loss(logits / temperature, crowded()[TARGETS[:, 0]])
    assert model.loss(BATCH).item() == pytest.approx(expected, rel=1e-10)
    smoothed = ref.composite_loss(logits / temperature, crowded()[TARGETS[:, 0]], 0.2)
    assert model.loss(BATCH, 0.2).item() == pytest.approx(smoothed, rel=1e-10)


@pytest.mark.parametrize("temperature", [0.5, 3.0])
def test_children_are_predicted_at_a_temperature(temperature):
    """Scores of siblings, codes and popularity together, are divided by it."""
    model, codes = generator(temperature, "children"), crowded()
    weights, vectors = models.weights_of(model), catalogue()[1]
    expected = []
    for row, target in zip(HISTORY.tolist(), TARGETS[:, 0].tolist(), strict=True):
        memory = models.encoder(weights, model.config, codes, vectors, [i for i in row if i != PAD])

        def scores(prefix, memory=memory):
            return models.next_scores(weights, model.config, codes, memory, prefix) / temperature

        prior = weights["prior_weight"] / temperature
        share = among_children(scores, codes, POPULARITY.tolist(), prior)
        name = tuple(tuple(int(c) for c in level) for level in codes[target])
        expected.append(-sum(share(name[:level], name[level]) for level in range(len(name))))
    trie = DeviceTrie.of(build_trie(codes, POPULARITY), "cpu")
    assert TrieLikelihood(trie)(model, BATCH).item() == pytest.approx(np.mean(expected), rel=1e-9)


@pytest.mark.parametrize("objective", ["codes", "children"])
def test_a_temperature_of_one_is_none(objective):
    trie = DeviceTrie.of(build_trie(crowded(), POPULARITY), "cpu")

    def loss(temperature):
        model = generator(temperature, objective)
        return (model.loss(BATCH) if objective == "codes" else TrieLikelihood(trie)(model, BATCH)).item()

    assert loss(1.0) == loss(None) != loss(0.5)
