"""Stage 2's loop: what it sees, selection by validation only, and that it goes on exactly where it stopped."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from held_out import LENGTHS, SHARED_ITEMS, held_out_dataset, histories_of

from bbqrec import recommender_training
from bbqrec.config import RecommenderConfig
from bbqrec.metrics import scores
from bbqrec.recommender import Recommender
from bbqrec.recommender_training import RecommenderTrainer
from bbqrec.schema import PAD, Codes
from bbqrec.tasks import build_recommender, semantic_ids

CONFIG = RecommenderConfig(
    buckets=9, d_model=12, heads=2, head_width=5, d_ff=16, encoder_layers=1, decoder_layers=1, dropout=0.2,
    relative_buckets=8, relative_max_distance=20, max_history=5, epochs=5, patience=9, batch_size=7,
    learning_rate=0.01, warmup_steps=3, beam=30, validation_beam=20, label_smoothing=0.1,
)  # fmt: skip
L, M, N, D = 2, 3, 6, 4
CPU = torch.device("cpu")


def codes() -> Codes:
    generator = np.random.default_rng(2)
    items = held_out_dataset().num_items
    books = generator.normal(size=(L, M, N, D)).astype(np.float32)
    chosen = generator.integers(0, N, (items, L, M))
    chosen[20] = chosen[3] = chosen[9]  # a collision
    vectors = np.stack([books[:, m][np.arange(L), chosen[:, :, m]].sum(1) for m in range(M)], axis=1)
    return Codes(
        components=("id", "text", "image"), codes=chosen, vectors=vectors.reshape(items, M * D), codebooks=books
    )


def trainer(seed: int = 3, **changes) -> RecommenderTrainer:
    return RecommenderTrainer(replace(CONFIG, **changes), held_out_dataset(), codes(), seed, CPU)


@pytest.mark.parametrize("history", ["prefix", "packed"])
@pytest.mark.parametrize("objective", ["codes", "children"])
def test_held_out_items_never_enter_training(monkeypatch, history, objective):
    seen = []
    states = Recommender.states

    def watched(self, batch):
        assert self.training
        seen.append((batch.history, batch.target, batch.visible))
        return states(self, batch)

    monkeypatch.setattr(Recommender, "states", watched)
    loop = trainer(history=history, objective=objective, label_smoothing=0.0)
    loop.train_epoch()
    for tensors in seen:
        assert all(tensor.max() < SHARED_ITEMS for tensor in tensors[:2])
        assert (tensors[1][tensors[2] > 0] != PAD).all()
    assert sum(int((visible > 0).sum()) for _, _, visible in seen) == sum(max(n - 3, 0) for n in LENGTHS)


def test_the_test_split_is_read_by_judge_alone(monkeypatch):
    read = []
    original = recommender_training.evaluation_examples

    def watched(dataset, split, max_history):
        read.append(split)
        return original(dataset, split, max_history)

    monkeypatch.setattr(recommender_training, "evaluation_examples", watched)
    loop = trainer()
    reports = [loop.train_epoch() for _ in range(2)]
    assert set(read) == {"valid"} and not any("test" in name for report in reports for name in report)
    assert loop.judge("test").shape == (len(LENGTHS),) and read[-1] == "test"


def states(loop: RecommenderTrainer) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in loop.model.state_dict().items()}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("stop", [1, 4])
@pytest.mark.parametrize("history", ["prefix", "packed"])
def test_stop_and_resume_equals_a_straight_run_bit_for_bit(stop, history):
    straight, first, second = trainer(history=history), trainer(history=history), trainer(history=history)
    reports = [straight.train_epoch() for _ in range(CONFIG.epochs)]
    again = [first.train_epoch() for _ in range(stop)]
    torch.manual_seed(999)
    second.unpack(first.pack())
    again += [second.train_epoch() for _ in range(CONFIG.epochs - stop)]
    assert same(states(straight), states(second)) and same(straight.best, second.best)
    assert (straight.best_epoch, straight.best_score) == (second.best_epoch, second.best_score)
    for one, other in zip(reports, again, strict=True):
        assert {k: v for k, v in one.items() if "seconds" not in k} == {
            k: v for k, v in other.items() if "seconds" not in k
        }
    np.testing.assert_array_equal(straight.judge("test"), second.judge("test"))


def scripted(loop: RecommenderTrainer, monkeypatch, ranks: list[int]) -> None:
    """Validation finds every target at the epoch's rank."""
    script = iter(ranks)
    monkeypatch.setattr(loop.task, "ranks", lambda *_, **__: np.full(len(LENGTHS), next(script), dtype=np.int32))


def test_the_best_epoch_s_weights_are_kept_and_judged(monkeypatch):
    loop = trainer()
    scripted(loop, monkeypatch, [4, 2, 3, 2, 9])
    kept = []
    for _ in range(5):
        loop.train_epoch()
        kept.append(states(loop))
    assert loop.best_epoch == 2 and loop.best_score == pytest.approx(1 / np.log2(3))
    assert same(loop.best, kept[1]) and not same(loop.best, kept[4])
    monkeypatch.undo()
    loop.judge("valid")
    assert same(states(loop), kept[1])


def test_training_stops_when_patience_is_spent(monkeypatch):
    loop = trainer(patience=2, epochs=50)
    scripted(loop, monkeypatch, [5, 3, 4, 2, 2, 7, 1])
    epochs = 0
    while not loop.finished():
        loop.train_epoch()
        epochs += 1
    assert (epochs, loop.best_epoch) == (6, 4)


def test_validation_reports_the_metrics_of_its_ranks():
    loop = trainer(validation_beam=40)
    report = loop.train_epoch()
    expected = scores(loop.judge("valid"))
    assert {name: report[f"valid/{name}"] for name in expected} == pytest.approx(expected)
    assert report["valid/best_ndcg@10"] == report["valid/ndcg@10"] and report["loss"] > 0


def test_validation_users_are_the_same_at_every_start():
    one, other, seed = trainer(validation_users=4), trainer(validation_users=4), trainer(seed=8, validation_users=4)
    assert one.validation.history.shape[0] == 4
    np.testing.assert_array_equal(one.validation.target, other.validation.target)
    assert one.validation.target.tolist() != seed.validation.target.tolist()
    assert len(trainer(validation_users=400).validation.history) == len(LENGTHS)


def test_the_loss_falls_and_smoothing_is_used():
    loop, sharp = trainer(epochs=15, patience=99), trainer(label_smoothing=0.0)
    reports = [loop.train_epoch()["loss"] for _ in range(15)]
    assert reports[-1] < reports[0] * 0.9
    assert sharp.train_epoch()["loss"] != reports[0]


def test_variant_s_has_no_similarity_table_and_e_starts_from_the_codebook():
    full, s, e = (build_recommender(c, codes(), held_out_dataset(), 3) for c in (
        CONFIG, replace(CONFIG, similarity=False), replace(CONFIG, inherit_codebook=True, d_model=D)
    ))  # fmt: skip
    assert [n for n, _ in full.named_parameters() if "similarity" in n] == ["encoder.0.similarity.delta"]
    assert not [n for n, _ in s.named_parameters() if "similarity" in n] and s.item_vectors.numel() == 0
    np.testing.assert_array_equal(e.embedding.tables.detach().numpy(), codes().codebooks)
    assert e.embedding.tables.requires_grad and [n for n, _ in e.named_parameters() if "similarity" in n]


def test_variant_e_projects_when_the_widths_differ_and_trains_on():
    loop, plain = trainer(inherit_codebook=True), trainer()
    assert not torch.equal(loop.model.embedding.tables, plain.model.embedding.tables)
    start = loop.model.embedding.tables.detach().clone()
    flat, mapped = torch.from_numpy(codes().codebooks).flatten(0, 2), start.flatten(0, 2)
    torch.testing.assert_close(flat @ torch.linalg.lstsq(flat, mapped).solution, mapped, atol=1e-4, rtol=0)
    loop.train_epoch()
    assert not torch.equal(loop.model.embedding.tables, start)


def test_layouts_and_disambiguation():
    dataset = held_out_dataset()
    composite, numbered, flat, both = (
        semantic_ids(codes(), replace(CONFIG, layout=layout, disambiguate=extra), dataset)
        for layout, extra in (("composite", False), ("composite", True), ("flat", False), ("flat", True))
    )
    assert [ids.shape[1:] for ids in (composite, numbered, flat, both)] == [(2, 3), (3, 3), (6, 1), (7, 1)]
    np.testing.assert_array_equal(flat[:, :, 0], composite.reshape(len(flat), -1))
    bought = [item for history in histories_of(dataset) for item in history[:-2]]
    crowd = sorted([3, 9, 20], key=lambda i: (-bought.count(i), i))
    assert [numbered[i, -1, 0] for i in crowd] == [0, 1, 2] == [both[i, -1, 0] for i in crowd]


@pytest.mark.parametrize(
    "changes",
    [
        {"layout": "flat"},
        {"layout": "flat", "disambiguate": True, "similarity": False},
        {"layout": "flat", "inherit_codebook": True, "history": "packed"},
        {"disambiguate": True, "inherit_codebook": True},
        {"objective": "children", "label_smoothing": 0.0},
        {"objective": "children", "label_smoothing": 0.0, "history": "packed", "disambiguate": True},
        {"objective": "children", "label_smoothing": 0.0, "layout": "flat"},
        {"similarity_init": "uniform", "fusion": "sum", "attention_scale": "sqrt", "decay": "constant"},
    ],
    ids=str,
)
def test_other_layouts_train_and_rank(changes):
    loop = trainer(**changes)
    report = loop.train_epoch()
    assert np.isfinite(report["loss"])
    ranks = loop.judge("test")
    assert ((ranks >= 1) & ((ranks <= 40) | (ranks == ranks.dtype.type(np.iinfo(np.int32).max)))).all()


def test_weights_that_the_last_step_broke_are_not_ranked_with():
    """One batch: no later loss would tell."""
    loop = trainer(batch_size=500, learning_rate=1e20, warmup_steps=0)
    with pytest.raises(FloatingPointError, match="are not numbers"):
        loop.train_epoch()
    assert loop.epoch == 0 and not loop.best
