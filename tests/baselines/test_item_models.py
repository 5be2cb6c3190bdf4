"""What every model over items has to do, whatever it is: learn, see no held-out item, treat users alike, go on."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from held_out import LENGTHS, SHARED_ITEMS, held_out_dataset

from bbqrec.data import Batch
from bbqrec.examples import Examples, evaluation_examples
from bbqrec.methods import METHODS, run_config
from bbqrec.recommender_training import RecommenderTrainer
from bbqrec.schema import PAD, Dataset, Features

ITEM_MODELS = [method for method, about in METHODS.items() if about.quantizer is None]
CPU = torch.device("cpu")
SMALL = {
    "recommender.d_model": 24, "recommender.max_history": 5, "recommender.batch_size": 7, "recommender.epochs": 4,
    "recommender.learning_rate": 0.01, "recommender.warmup_steps": 2, "recommender.precision": "float32",
}  # fmt: skip


def trainer(method: str, dataset: Dataset, profile: str = "tiny", **overrides) -> RecommenderTrainer:
    run = run_config(method, dataset, 3, profile, overrides)
    return RecommenderTrainer(run.recommender, dataset, None, 3, CPU)


def thirty_users() -> Dataset:
    """Thirty users of 6 to 10 items out of 60; no two have the same item before their last training item."""
    generator = np.random.default_rng(5)
    lengths = generator.integers(6, 11, 30)
    items = np.concatenate([generator.choice(60, n, replace=False) for n in lengths])
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    features = {}
    for name, width in (("text", 16), ("image", 12)):
        present = generator.random(60) > 0.1
        values = generator.normal(size=(60, width)).astype(np.float32) * present[:, None]
        features[name] = Features(values=values, present=present)
    return Dataset(
        name="thirty",
        fingerprint="30" * 32,
        user_ids=np.array([f"u{u}" for u in range(30)], dtype=object),
        item_ids=np.array([f"i{i}" for i in range(60)], dtype=object),
        titles=np.array([f"title {i}" for i in range(60)], dtype=object),
        offsets=offsets,
        items=items,
        features=features,
    )


def last_training_targets(dataset: Dataset, max_history: int) -> Examples:
    """A row per user: the last training item from all before it."""
    short = replace(
        dataset,
        offsets=np.concatenate([[0], np.cumsum(np.diff(dataset.offsets) - 1)]),
        items=np.delete(dataset.items, dataset.offsets[1:] - 1),
    )
    return evaluation_examples(short, "valid", max_history)


@pytest.mark.slow
@pytest.mark.parametrize("method", ITEM_MODELS)
def test_learns_thirty_users_by_heart(method):
    dataset = thirty_users()
    epochs = 300 if method in ("bert4rec", "nova-bert") else 150  # the target is hidden in a part of the rows only
    loop = trainer(
        method, dataset,
        **{"recommender.dropout": 0.0, "recommender.weight_decay": 0.0, "recommender.learning_rate": 5e-3,
           "recommender.batch_size": 15, "recommender.epochs": epochs, "recommender.patience": epochs,
           "recommender.validation_users": 1, "recommender.warmup_steps": 5, "recommender.precision": "float32"},
    )  # fmt: skip
    while not loop.finished():
        loop.train_epoch()
    ranks = loop.task.ranks(last_training_targets(dataset, loop.config.max_history), judging=True)
    assert (ranks == 1).mean() > 0.95


@pytest.mark.parametrize("method", ITEM_MODELS)
def test_held_out_items_never_enter_training(monkeypatch, method):
    """Neither as history nor as target; as one of all items a prediction is scored against they must."""
    seen = []
    loop = trainer(method, held_out_dataset(), **SMALL)
    loss = loop.task.loss

    def watched(batch: Batch):
        seen.append(batch)
        return loss(batch)

    monkeypatch.setattr(loop.task, "loss", watched)
    loop.train_epoch()
    assert seen and all(batch.history.max() < SHARED_ITEMS for batch in seen)
    assert all((batch.target[batch.visible > 0] < SHARED_ITEMS).all() for batch in seen)


@pytest.mark.parametrize("method", ITEM_MODELS)
def test_users_are_ranked_alike_in_any_order(method):
    loop = trainer(method, held_out_dataset(), **SMALL)
    loop.train_epoch()
    users = evaluation_examples(held_out_dataset(), "valid", 5)
    mixed = np.random.default_rng(1).permutation(len(LENGTHS))
    turned = Examples(history=users.history[mixed], target=users.target[mixed], visible=users.visible[mixed])
    ranks = loop.task.ranks(users, judging=True)
    assert ranks.min() >= 1 and ranks.max() <= held_out_dataset().num_items and len(set(ranks.tolist())) > 1
    np.testing.assert_array_equal(loop.task.ranks(turned, judging=True), ranks[mixed])


@pytest.mark.parametrize("method", ITEM_MODELS)
def test_what_stands_behind_a_history_changes_nothing(method):
    """Padding, however much of it."""
    loop = trainer(method, held_out_dataset(), **SMALL)
    model = loop.model.eval()
    history = torch.tensor([[3, 9, 4]])
    longer = torch.tensor([[3, 9, 4, PAD, PAD], [1, 2, 3, 4, 5]])
    with torch.no_grad():
        torch.testing.assert_close(model.scores(longer)[:1], model.scores(history))


@pytest.mark.parametrize("method", ITEM_MODELS)
def test_the_order_of_a_history_counts(method):
    model = trainer(method, held_out_dataset(), **SMALL).model.eval()
    with torch.no_grad():
        there, back = (model.scores(torch.tensor([items])) for items in ([3, 9, 4], [4, 9, 3]))
    assert (there - back).abs().max() > 1e-6


@pytest.mark.parametrize("profile", ["paper", "small"])
@pytest.mark.parametrize("method", ITEM_MODELS)
def test_first_losses_are_finite_at_full_size(tiny_dataset, method, profile):
    loop = trainer(method, tiny_dataset, profile)
    losses = [float(loop.step(np.arange(12))[0]) for _ in range(3)]
    assert np.isfinite(losses).all() and losses[0] < 3 * np.log(tiny_dataset.num_items)


def test_no_two_models_learn_the_same(tiny_dataset):
    losses = [trainer(method, tiny_dataset).train_epoch()["loss"] for method in ITEM_MODELS]
    assert len({round(loss, 6) for loss in losses}) == len(ITEM_MODELS)


@pytest.mark.parametrize("method", ITEM_MODELS)
def test_stop_and_resume_equals_a_straight_run_bit_for_bit(method):
    straight, first, second = (trainer(method, held_out_dataset(), **SMALL) for _ in range(3))
    reports = [straight.train_epoch() for _ in range(4)]
    again = [first.train_epoch() for _ in range(2)]
    torch.manual_seed(999)
    second.unpack(first.pack())
    again += [second.train_epoch() for _ in range(2)]
    assert [report["loss"] for report in reports] == [report["loss"] for report in again]
    mine, other = straight.model.state_dict(), second.model.state_dict()
    assert all(torch.equal(mine[name], other[name]) for name in mine)
    np.testing.assert_array_equal(straight.judge("test"), second.judge("test"))


@pytest.mark.parametrize("method", ITEM_MODELS)
def test_an_item_without_features_is_an_item_like_others(method):
    dataset = held_out_dataset()
    assert any(not features.present.all() for features in dataset.features.values())
    model = trainer(method, dataset, **SMALL).model.eval()
    with torch.no_grad():
        assert torch.isfinite(model.scores(torch.arange(dataset.num_items)[:, None])).all()
        assert model.item_vectors().shape[0] == dataset.num_items
