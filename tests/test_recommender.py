"""The whole encoder-decoder against its loops; packed and prefix histories; what a prediction may depend on."""

from dataclasses import replace

import numpy as np
import pytest
import reference as ref
import reference_models as models
import torch

from bbqrec.config import RecommenderConfig
from bbqrec.data import Batch
from bbqrec.recommender import CodeEmbedding, Recommender
from bbqrec.schema import PAD

COUNT, L, M, N, W = 8, 3, 2, 5, 6
CONFIG = RecommenderConfig(
    buckets=9, d_model=10, heads=2, head_width=3, d_ff=7, encoder_layers=2, decoder_layers=2, dropout=0.0,
    relative_buckets=8, relative_max_distance=10,
)  # fmt: skip
HISTORY = torch.tensor([[3, 5, 3, 7], [6, 0, PAD, PAD]])
TARGETS = torch.tensor([[2], [4]])


def catalogue() -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(11)
    return generator.integers(0, N, (COUNT, L, M)), generator.normal(size=(COUNT, W))


def recommender(**changes) -> Recommender:
    """In float64, every weight away from its neutral start."""
    torch.manual_seed(5)
    codes, vectors = catalogue()
    model = Recommender(replace(CONFIG, **changes), torch.from_numpy(codes), torch.from_numpy(vectors), N).double()
    for name, parameter in model.named_parameters():
        around = 1.0 if "norm" in name or "similarity" in name else 0.0
        torch.nn.init.normal_(parameter, mean=around, std=0.4)
    return model.eval()


def lengths(history: torch.Tensor) -> torch.Tensor:
    return (history != PAD).sum(1, keepdim=True)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"history": "packed"},
        {"similarity": False, "attention_scale": "sqrt"},
        {"fusion": "sum", "encoder_layers": 1, "decoder_layers": 3},
        {"decoder_start": "last", "decoder_layers": 1},
        {"decoder_start": "last", "history": "packed", "fusion": "sum"},
        {"decoder_start": "every", "history": "packed", "fusion": "sum"},
    ],
    ids=str,
)
def test_whole_model_equals_the_loops(changes):
    model, (codes, vectors) = recommender(**changes), catalogue()
    weights = models.weights_of(model)
    logits = model(Batch(history=HISTORY, target=TARGETS, visible=lengths(HISTORY)))
    assert logits.shape == (2, L, M, N)
    logs = torch.log_softmax(logits, -1).detach().numpy()
    for b, (row, target) in enumerate(zip(HISTORY.tolist(), TARGETS[:, 0].tolist(), strict=True)):
        memory = models.encoder(weights, model.config, codes, vectors, [i for i in row if i != PAD])
        for level in range(L):
            prefix = [tuple(c) for c in codes[target, :level]]
            expected = models.next_scores(weights, model.config, codes, memory, prefix)
            np.testing.assert_allclose(logs[b, level], expected, atol=1e-9)


@pytest.mark.parametrize("start", ["last", "every"])
def test_a_decoder_that_starts_from_the_last_item_begins_as_the_identity(start):
    """Dropout, which all other inputs have, leaves the last item's state alone; the first step leaves the identity."""
    codes, vectors = catalogue()
    batch = Batch(history=HISTORY, target=TARGETS, visible=lengths(HISTORY))
    torch.manual_seed(0)
    config = replace(CONFIG, decoder_start=start, dropout=0.5)
    model = Recommender(config, torch.from_numpy(codes), torch.from_numpy(vectors).float(), N)
    memory = model.encode(HISTORY).detach()
    model.encode = lambda history: memory
    states = model.states(batch)
    first = model.norm_decoder(model.first(memory, batch.visible)[:, 0])
    torch.testing.assert_close(states[:, 0], first)
    assert (states[:, 1:] - model.eval().states(batch)[:, 1:]).abs().max() > 1e-3
    model.loss(batch).backward()
    for block in model.decoder:
        for output in (block.self_attention.o, block.cross_attention.o, block.wo):
            assert output.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("std", [0.007, 0.5])
def test_code_embeddings_start_as_wide_as_told(std):
    codes, vectors = catalogue()
    torch.manual_seed(0)
    model = Recommender(replace(CONFIG, embedding_std=std), torch.from_numpy(codes), torch.from_numpy(vectors), N)
    assert model.embedding.tables.std().item() == pytest.approx(std, rel=0.15)


def test_loss_is_the_mean_over_levels_components_and_counted_targets():
    model, (codes, _) = recommender(history="packed"), catalogue()
    target, visible = torch.tensor([[2, 4, 1, 6], [5, 7, 0, 0]]), torch.tensor([[1, 0, 3, 4], [1, 2, 0, 0]])
    batch = Batch(history=HISTORY, target=target, visible=visible)
    logits = model(batch).detach().numpy()
    counted = [2, 1, 6, 5, 7]
    assert logits.shape[0] == len(counted)
    for smoothing in (0.0, 0.2):
        expected = ref.composite_loss(logits, codes[counted], smoothing)
        assert model.loss(batch, smoothing).item() == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("start", ["learned", "last", "every"])
def test_packed_targets_equal_each_prefix_alone(start):
    """One pass over a packed history gives what a packed model gives for every prefix by itself."""
    model = recommender(history="packed", decoder_start=start)
    target, visible = torch.tensor([[2, 4, 1, 6], [5, 7, 0, 0]]), torch.tensor([[1, 2, 3, 4], [1, 2, 0, 0]])
    together = model(Batch(history=HISTORY, target=target, visible=visible))
    for number, (b, s) in enumerate((visible > 0).nonzero().tolist()):
        alone = HISTORY[b : b + 1, : visible[b, s]]
        single = model(Batch(history=alone, target=target[b : b + 1, s : s + 1], visible=lengths(alone)))
        torch.testing.assert_close(together[number], single[0], atol=1e-10, rtol=0)


@pytest.mark.parametrize("history", ["packed", "prefix"])
def test_a_packed_prefix_does_not_depend_on_later_items(history):
    model = recommender(history=history)
    visible = torch.tensor([[1, 2, 3]])
    rows = [torch.tensor([[3, 5, 1, last]]) for last in (7, 2)]
    first, second = (
        model(Batch(history=row, target=torch.tensor([[2, 4, 6]]), visible=visible)).detach() for row in rows
    )
    if history == "packed":
        torch.testing.assert_close(first, second, atol=0, rtol=0)
    else:  # the bidirectional encoder does look ahead: never train it on packed rows
        assert (first - second).abs().amax((1, 2, 3)).min() > 1e-3


def test_only_the_packed_form_knows_how_far_back_an_item_lies():
    """Swapping the bias of the last item with that of the one before changes a packed prediction."""
    model = recommender(history="packed")
    batch = Batch(history=HISTORY[:1], target=TARGETS[:1], visible=lengths(HISTORY[:1]))
    before = model(batch).detach()
    with torch.no_grad():
        model.cross_relative.table.weight[:2] = model.cross_relative.table.weight[[1, 0]].clone()
    assert (model(batch) - before).abs().max() > 1e-6
    assert recommender(history="prefix").cross_relative is None


def take_over(prefix, packed):
    """The packed model's weights, all but those that a prefix model has no use for."""
    missing, unused = prefix.load_state_dict(packed.state_dict(), strict=False)
    assert (missing, unused) == ([], ["cross_relative.table.weight"])


def test_packed_and_prefix_agree_on_one_item_and_differ_beyond():
    packed, prefix = recommender(history="packed"), recommender(history="prefix")
    take_over(prefix, packed)
    for size in (1, 2, 4):
        history = HISTORY[:1, :size]
        batch = Batch(history=history, target=TARGETS[:1], visible=lengths(history))
        gap = (packed(batch) - prefix(batch)).abs().max().item()
        assert gap < 1e-12 if size == 1 else gap > 1e-3


def test_packed_and_prefix_agree_on_the_last_item_s_first_layer():
    packed, prefix = recommender(history="packed", encoder_layers=1), recommender(encoder_layers=1)
    take_over(prefix, packed)
    one, other = packed.encode(HISTORY[:1]), prefix.encode(HISTORY[:1])
    torch.testing.assert_close(one[:, -L:], other[:, -L:], atol=1e-12, rtol=0)
    assert (one[:, :-L] - other[:, :-L]).abs().max() > 1e-3


@pytest.mark.parametrize("history", ["packed", "prefix"])
def test_padding_changes_nothing(history):
    model = recommender(history=history)
    alone = model(Batch(history=HISTORY[1:, :2], target=TARGETS[1:], visible=lengths(HISTORY[1:])))
    padded = model(Batch(history=HISTORY, target=TARGETS, visible=lengths(HISTORY)))
    torch.testing.assert_close(padded[1], alone[0], atol=1e-10, rtol=0)


def test_a_level_sees_the_target_s_earlier_levels_only():
    base = recommender()(Batch(history=HISTORY, target=TARGETS, visible=lengths(HISTORY))).detach()
    for level in range(L):
        changed = recommender()
        changed.item_codes[TARGETS[0, 0], level] = (changed.item_codes[TARGETS[0, 0], level] + 1) % N
        moved = changed(Batch(history=HISTORY, target=TARGETS, visible=lengths(HISTORY))).detach() - base
        assert (moved[0].abs().amax((1, 2)) > 1e-6).tolist() == [later > level for later in range(L)]


def test_similarity_reaches_the_encoder_only_through_the_table():
    """Other vectors v change the scores with the module (Eq. 14), and nothing without it (variant S)."""
    for similarity in (True, False):
        model = recommender(similarity=similarity)
        before = model.encode(HISTORY)
        if similarity:
            model.item_vectors.copy_(torch.randn_like(model.item_vectors))
            assert (model.encode(HISTORY) - before).abs().max() > 1e-3
        else:
            assert model.item_vectors.numel() == 0
            assert not [name for name in model.state_dict() if "similarity" in name]


def test_embedding_of_some_levels_and_of_one_level_agree_with_the_whole():
    for fusion in ("concat", "sum"):
        torch.manual_seed(0)
        embedding = CodeEmbedding(L, M, N, 7, fusion).double()
        codes = torch.from_numpy(catalogue()[0])
        whole = embedding(codes)
        for level in range(L):
            torch.testing.assert_close(embedding.one_level(level, codes[:, level]), whole[:, level])
            torch.testing.assert_close(embedding(codes[:, : level + 1]), whole[:, : level + 1])


@pytest.mark.parametrize("width", [7, 4])
def test_variant_e_inherits_the_codebook_vectors(width):
    torch.manual_seed(0)
    embedding = CodeEmbedding(L + 1, M, N, 7, "concat").double()
    start = embedding.tables.detach().clone()
    books = torch.randn(L, M, N, width, dtype=torch.float32)
    embedding.inherit(books, torch.Generator().manual_seed(2))
    found = embedding.tables.detach()
    torch.testing.assert_close(found[L], start[L])  # a disambiguation level has no codebook
    if width == 7:
        torch.testing.assert_close(found[:L], books.double())
    else:  # one projection for all: linear in the book's vectors
        flat, mapped = books.double().flatten(0, 2), found[:L].flatten(0, 2)
        solution = torch.linalg.lstsq(flat, mapped).solution
        torch.testing.assert_close(flat @ solution, mapped, atol=1e-5, rtol=0)
        assert mapped.std() == pytest.approx(books.std().item(), rel=0.5)


def test_every_parameter_learns():
    model = recommender()
    model.loss(Batch(history=HISTORY, target=TARGETS, visible=lengths(HISTORY))).backward()
    dead = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert dead == []
