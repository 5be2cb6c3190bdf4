"""VQ-Rec against loops: its item vectors, scores and both losses; and where its codes come from."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from held_out import held_out_dataset
from reference_models import sequence_encoder

from bbqrec.baselines import vqrec
from bbqrec.baselines.product_quantization import product_codes
from bbqrec.baselines.vqrec import VQRec, VQRecConfig
from bbqrec.data import Batch
from bbqrec.schema import Features

DATASET = held_out_dataset()
TEXT = DATASET.features["text"]
LACKING = np.flatnonzero(~TEXT.present).tolist()
DIGITS, CODES, WIDTH = 3, 8, 10
BATCH = Batch(
    history=torch.tensor([[3, 5, 1], [8, 2, -1]]),
    target=torch.tensor([[5, 1, LACKING[0]], [5, 0, 0]]),
    visible=torch.tensor([[1, 2, 3], [1, 0, 0]]),
)
EXAMPLES = (([3], 5), ([3, 5], 1), ([3, 5, 1], LACKING[0]), ([8], 5))


def model(dataset=DATASET, **changes) -> VQRec:
    torch.manual_seed(2)
    config = VQRecConfig(d_model=WIDTH, layers=3, heads=2, max_history=5, digits=DIGITS, codes=CODES, **changes)
    made = VQRec(config, dataset)
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return made.double().eval()


def weights(made: VQRec) -> dict[str, np.ndarray]:
    return {name: value.detach().numpy() for name, value in made.state_dict().items()}


def reference_vectors(made: VQRec) -> np.ndarray:
    """Codes of the items with text, in their order; the rows behind all codes for the others, in theirs."""
    table = weights(made)["table.weight"]
    codes = product_codes(TEXT.values[TEXT.present], DIGITS, CODES, 50).codes.tolist()
    vectors, coded, lacking = [], 0, 0
    for item in range(DATASET.num_items):
        if TEXT.present[item]:
            rows = [table[digit * CODES + codes[coded][digit]] for digit in range(DIGITS)]
            vectors.append(sum(rows) / DIGITS)
            coded += 1
        else:
            vectors.append(table[DIGITS * CODES + lacking])
            lacking += 1
    assert len(table) == DIGITS * CODES + lacking
    return np.array(vectors)


def cosine(a, b) -> float:
    return sum(a * b) / math.sqrt(sum(a * a)) / math.sqrt(sum(b * b))


def reference_state(made: VQRec, vectors: np.ndarray, history: list[int]) -> np.ndarray:
    renamed = {name.replace("encoder.", "sequence_encoder.", 1): value for name, value in weights(made).items()}
    return sequence_encoder(renamed, vectors[history], 3, 2)[-1]


def reference_scores(made: VQRec, history: list[int], tau: float) -> np.ndarray:
    vectors = reference_vectors(made)
    h = reference_state(made, vectors, history)
    return np.array([cosine(h, vector) / tau for vector in vectors])


def test_an_items_vector_is_the_mean_of_its_codes_embeddings():
    made = model()
    expected = reference_vectors(made)
    np.testing.assert_allclose(made.vectors().detach().numpy(), expected, atol=1e-12)
    unit = expected / np.sqrt((expected**2).sum(1, keepdims=True))
    np.testing.assert_allclose(made.item_vectors().detach().numpy(), unit, atol=1e-12)


def test_scores_equal_the_loops():
    made = model(temperature=0.3)
    for history in ([3], [5, 1, 9, 2], [LACKING[1], 4, 11, 0, 7]):
        found = made.scores(torch.tensor([history]))[0].detach().numpy()
        np.testing.assert_allclose(found, reference_scores(made, history, 0.3), atol=1e-10)


def test_full_loss_is_the_mean_over_the_counted_targets():
    made = model(temperature=0.3)
    expected = []
    for history, target in EXAMPLES:
        row = reference_scores(made, history, 0.3)
        expected.append(np.log(np.exp(row).sum()) - row[target])
    loss, targets = made.loss(BATCH)
    assert targets == 4 and loss.item() == pytest.approx(np.mean(expected), abs=1e-10)


def test_contrastive_loss_is_over_the_batch_and_one_synthetic_item():
    """An item without text has no synthetic twin; a target that occurs twice is one candidate."""
    made = model(loss="contrastive", temperature=0.3)
    made.vectors()
    torch.manual_seed(6)
    false = made.semi_synthetic(made.codes[torch.tensor([target for _, target in EXAMPLES])]).tolist()
    vectors, table = reference_vectors(made), weights(made)["table.weight"]
    expected = []
    for (history, target), rows in zip(EXAMPLES, false, strict=True):
        h = reference_state(made, vectors, history)
        candidates = [vectors[item] for item in (5, 1, LACKING[0])]
        if target != LACKING[0]:
            candidates.append(sum(table[row] for row in rows) / DIGITS)
        mass = sum(math.exp(cosine(h, c) / 0.3) for c in candidates)
        expected.append(math.log(mass) - cosine(h, vectors[target]) / 0.3)
    torch.manual_seed(6)
    loss, targets = made.loss(BATCH)
    assert targets == 4 and loss.item() == pytest.approx(np.mean(expected), abs=1e-10)
    loss.backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in made.parameters())


def test_a_semi_synthetic_item_keeps_each_digits_own_codes():
    made = model(synthetic_share=0.3)
    made.vectors()
    codes = made.codes[made.coded][[0]].expand(20_000, -1)
    drawn = made.semi_synthetic(codes)
    assert torch.equal(drawn // CODES, codes // CODES)
    changed = (drawn != codes).double().mean(0)
    assert changed == pytest.approx(torch.full((DIGITS,), 0.3 * (1 - 1 / CODES)), abs=0.02)
    assert all(len(drawn[:, digit].unique()) == CODES for digit in range(DIGITS))
    assert torch.equal(model(synthetic_share=0.0).semi_synthetic(codes), codes)


def test_codes_of_a_checkpoint_are_not_computed_again(monkeypatch):
    first = model()
    expected = first.vectors()
    monkeypatch.setattr(vqrec, "product_codes", None)
    second = model()
    second.load_state_dict(first.state_dict())
    assert torch.equal(second.vectors(), expected)


def test_codes_are_of_the_features_alone():
    """Neither of the interactions nor of the zeros that stand where there is no text."""
    other = np.where(TEXT.present[:, None], TEXT.values, 7).astype(np.float32)
    features = {"text": Features(values=other, present=TEXT.present)}
    turned = replace(DATASET, items=DATASET.items[::-1].copy(), features=features)
    first, second = model(), model(turned)
    first.vectors(), second.vectors()
    assert (first.codes >= 0).all() and torch.equal(first.codes, second.codes)


def test_where_every_item_has_text():
    full = Features(values=np.where(TEXT.values == 0, 0.5, TEXT.values), present=np.ones_like(TEXT.present))
    made = model(replace(DATASET, features={"text": full}))
    assert made.table.num_embeddings == DIGITS * CODES
    assert torch.isfinite(made.scores(torch.tensor([[3, LACKING[0]]]))).all()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"features": ("text", "image")}, "must name one modality"),
        ({"features": ()}, "must name one modality"),
        ({"d_model": 8, "heads": 3}, "heads=3 must divide d_model=8"),
        ({"codes": 1}, "codes=1 must be at least 2"),
        ({"temperature": 0.0}, "temperature=0.0 must be above 0"),
        ({"synthetic_share": 1.1}, "synthetic_share=1.1 must be at most 1"),
    ],
)
def test_what_makes_no_sense_is_named(changes, said):
    with pytest.raises(ValueError, match=said):
        VQRecConfig(**changes)
