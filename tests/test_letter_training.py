"""LETTER's stage-1 loop: what it sees, that every field counts, and that it goes on exactly where it stopped."""

from dataclasses import replace

import numpy as np
import pytest
import reference as ref
import torch
from held_out import SHARED_ITEMS, held_out_dataset, histories_of

from bbqrec.baselines.letter import LetterQuantizer, LetterQuantizerConfig
from bbqrec.codebook import ResidualCodebook
from bbqrec.letter_training import LetterTrainer
from bbqrec.quantizer import Quantizer

CONFIG = LetterQuantizerConfig(
    levels=2, codes=6, width=8, hidden=9, clusters=2, collaborative=0.5, diversity=0.1, epsilon=0.05,
    sinkhorn_iterations=5, kmeans_iterations=1, epochs=4, passes=3, batch_items=5, learning_rate=0.01,
)  # fmt: skip
CPU = torch.device("cpu")
TRAINED = sorted({item for history in histories_of(held_out_dataset()) for item in history[:-2]})


def teacher(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(held_out_dataset().num_items, 7)).astype(np.float32)


def trainer(seed: int = 3, vectors: np.ndarray | None = None, **changes) -> LetterTrainer:
    given = teacher() if vectors is None else vectors
    return LetterTrainer(replace(CONFIG, **changes), held_out_dataset(), given, seed, CPU)


def states(loop: LetterTrainer) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in loop.model.state_dict().items()}


def gap(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    floats = [name for name, value in one.items() if value.is_floating_point() and name != "teacher"]
    return max((one[name] - other[name]).abs().max().item() for name in floats)


def test_every_training_item_is_seen_once_a_pass_and_no_other(monkeypatch):
    """Nor does k-means see a held-out one."""
    seen, encoded = [], []
    forward, encode = LetterQuantizer.forward, Quantizer.encode

    def watched(self, items):
        seen.append(items.tolist())
        return forward(self, items)

    def watched_encode(self, items):
        if self.training:
            encoded.append(items)
        return encode(self, items)

    monkeypatch.setattr(LetterQuantizer, "forward", watched)
    monkeypatch.setattr(Quantizer, "encode", watched_encode)
    loop = trainer()
    loop.train_epoch()
    per_pass = len(seen) // 3
    passes = [sorted(np.concatenate(seen[n * per_pass : (n + 1) * per_pass]).tolist()) for n in range(3)]
    assert len(seen) == 3 * per_pass and passes == [TRAINED] * 3 and max(map(len, seen)) <= 5
    assert TRAINED[-1] < SHARED_ITEMS and torch.cat(encoded).max() < SHARED_ITEMS and len(encoded) == len(seen) + 1


@pytest.mark.parametrize("stop", [1, 3])
def test_stop_and_resume_equals_a_straight_run_bit_for_bit(stop):
    straight, first, second = trainer(), trainer(), trainer()
    reports = [straight.train_epoch() for _ in range(CONFIG.epochs)]
    again = [first.train_epoch() for _ in range(stop)]
    torch.manual_seed(999)  # the process that resumes has drawn other numbers
    second.unpack(first.pack())
    assert second.epoch == stop and not second.finished()
    again += [second.train_epoch() for _ in range(CONFIG.epochs - stop)]
    assert second.finished() and straight.finished()
    one, other = states(straight), states(second)
    assert all(torch.equal(one[name], other[name]) for name in one)
    for report, same in zip(reports, again, strict=True):
        assert {k: v for k, v in report.items() if k != "seconds"} == {k: v for k, v in same.items() if k != "seconds"}
    items = held_out_dataset().num_items
    np.testing.assert_array_equal(straight.model.codes(items).codes, second.model.codes(items).codes)


def test_seeds_differ_and_repeat():
    one, same, other = trainer(), trainer(), trainer(seed=4)
    for loop in (one, same, other):
        loop.train_epoch()
    assert gap(states(one), states(same)) == 0 < gap(states(one), states(other))


@pytest.mark.parametrize(
    "name",
    ["alpha", "collaborative", "diversity", "epsilon", "sinkhorn_iterations", "kmeans_iterations", "passes",
     "batch_items", "learning_rate", "weight_decay", "epochs"],
)  # fmt: skip
def test_every_field_changes_what_is_learned(name):
    base, changed = trainer(), trainer(**{name: getattr(CONFIG, name) * 2})
    for loop in (base, changed):
        loop.train_epoch(), loop.train_epoch()
    assert gap(states(base), states(changed)) > 1e-7


def test_clusters_change_what_is_learned():
    base, changed = trainer(), trainer(clusters=3)
    base.train_epoch(), changed.train_epoch()
    assert gap(states(base), states(changed)) > 1e-7


def test_the_teacher_changes_what_is_learned_unless_its_weight_is_zero():
    for weight, differ in ((0.5, True), (0.0, False)):
        one, other = trainer(collaborative=weight), trainer(vectors=teacher(1), collaborative=weight)
        one.train_epoch(), other.train_epoch()
        assert (gap(states(one), states(other)) > 1e-6) == differ


def test_losses_fall_and_the_report_is_whole():
    loop = trainer(epochs=15, passes=8, batch_items=20, collaborative=1.0)
    reports = [loop.train_epoch() for _ in range(15)]
    for name in ("loss/total", "loss/recon", "loss/collaborative"):
        assert reports[-1][name] < reports[0][name] * 0.9, name
    last = reports[-1]
    expected = {"seconds", "restarted_codes", "codes/colliding_items", "codes/excess"}
    expected |= {f"loss/{name}" for name in ("total", "recon", "rq", "collaborative", "diversity")}
    expected |= {f"codes/{name}_{level}_text" for name in ("perplexity", "used") for level in (0, 1)}
    assert set(last) == expected and all(np.isfinite(value) for value in last.values())
    raw = loop.model.codes(loop.num_items).raw
    assert (last["codes/colliding_items"], last["codes/excess"]) == ref.collisions(raw)[:2]
    assert 1 <= last["codes/perplexity_0_text"] <= last["codes/used_0_text"] + 1e-4 <= 6 + 1e-4


def test_diversity_draws_the_codes_of_a_cluster_together():
    """Which takes a weight that lets nothing else count."""

    def spread(weight: float) -> float:
        loop = trainer(diversity=weight, collaborative=0.0, alpha=0.0, epochs=6, passes=10, restart_dead_codes=False)
        for _ in range(6):
            loop.train_epoch()
        book, cluster = loop.model.codebook.codebooks[0, 0].detach(), loop.model.clusters[0]
        unit = torch.nn.functional.normalize(book, dim=1)
        cosine, together = unit @ unit.T, cluster[:, None] == cluster
        off = ~torch.eye(6, dtype=torch.bool)
        return (cosine[together & off].mean() - cosine[~together].mean()).item()

    assert spread(100.0) > spread(0.0) + 0.1


def test_the_codebook_starts_once_and_clusters_are_made_every_epoch(monkeypatch):
    started, clustered = [], []
    initialise, cluster = ResidualCodebook.initialise, LetterQuantizer.cluster

    def watched(self, z, iterations, generator):
        started.append((loop.epoch, len(z)))
        initialise(self, z, iterations, generator)

    def watched_cluster(self, generator):
        cluster(self, generator)
        clustered.append(loop.epoch)

    monkeypatch.setattr(ResidualCodebook, "initialise", watched)
    monkeypatch.setattr(LetterQuantizer, "cluster", watched_cluster)
    loop = trainer()
    for _ in range(3):
        loop.train_epoch()
    assert started == [(0, len(TRAINED))] and clustered == [0, 1, 2]


def test_dead_codes_are_restarted_but_not_behind_the_last_epoch():
    """The upper level's; a transport leaves no last code unused."""
    loop = trainer(codes=30, epochs=2)
    first, last = loop.train_epoch(), loop.train_epoch()
    assert first["restarted_codes"] > 0 and last["restarted_codes"] == 0
    assert loop.model.codebook.usage.sum() == 0
    assert trainer(codes=30, restart_dead_codes=False).train_epoch()["restarted_codes"] == 0


def test_a_diverging_run_says_where():
    with pytest.raises(FloatingPointError, match="at epoch 1, step"):
        trainer(alpha=float("inf")).train_epoch()
    broken = trainer(passes=1, batch_items=99, learning_rate=1e30)  # a step an epoch: no later loss would tell
    broken.train_epoch()
    with pytest.raises(FloatingPointError, match="not finite"):
        broken.train_epoch()
