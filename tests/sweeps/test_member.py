"""A member's epochs without Ray: weights of one, values of another, and what happens when a loss is not finite."""

import json

import pytest
import torch
from safetensors.torch import load
from torch import nn

from bbqrec import recommender_training
from bbqrec.data import load_dataset
from bbqrec.methods import run_config
from bbqrec.recommender_training import RecommenderTrainer
from sweeps import member
from sweeps.member import DIVERGED, PAST, STATE, epochs

CPU = torch.device("cpu")
MILD = {"recommender.learning_rate": 1e-3, "recommender.dropout": 0.1, "recommender.weight_decay": 0.0}
STRONG = {"recommender.learning_rate": 4e-3, "recommender.dropout": 0.5, "recommender.weight_decay": 0.1}
FIXED = {"recommender.epochs": 4, "recommender.warmup_steps": 0, "recommender.decay": "constant"}


@pytest.fixture
def config(folder, store):
    run = run_config("sasrec", load_dataset(folder), 3, "tiny", FIXED)
    about = {"run": run.described(), "folder": str(folder), "store": store.url}
    return lambda number, values: {**about, "member": number, "values": values}


def taken(config, files, count):
    """The first `count` epochs: their reports, and the last checkpoint."""
    seen = []
    for report, state in epochs(config, files, CPU):
        seen.append(report)
        if len(seen) == count:
            return seen, state
    raise AssertionError(f"only {len(seen)} epochs")


@pytest.fixture
def trainers(monkeypatch):
    """Every trainer that is made."""
    made = []

    class Watched(RecommenderTrainer):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            made.append(self)

    monkeypatch.setattr(member, "RecommenderTrainer", Watched)
    return made


def test_weights_of_one_member_go_on_with_the_values_of_another(config, trainers, folder, monkeypatch):
    _, state = taken(config(0, MILD), None, 2)
    steps = []
    step = torch.optim.AdamW.step

    def watched(self, *arguments, **options):
        group = self.param_groups[0]
        steps.append((group["lr"], group["weight_decay"], int(self.state[group["params"][0]]["step"])))
        return step(self, *arguments, **options)

    monkeypatch.setattr(torch.optim.AdamW, "step", watched)
    reports, after = taken(config(1, STRONG), state, 1)
    (report,) = reports
    assert (report["epoch"], report["member"], report["weights_of"]) == (3, 1, 0)
    assert {path: report[path] for path in STRONG} == STRONG and report["score"] == report["valid/ndcg@10"]

    donor, taker = trainers
    per_epoch = len(steps)
    assert {lr for lr, _, _ in steps} == {4e-3} and {decay for _, decay, _ in steps} == {0.1}
    assert steps[0][2] == 2 * per_epoch, "the optimiser's state went along"
    assert {m.p for m in taker.model.modules() if isinstance(m, nn.Dropout)} == {0.5}
    assert {m.p for m in donor.model.modules() if isinstance(m, nn.Dropout)} == {0.1}

    # The same by hand: a trainer of the strong config, with the donor's state.
    monkeypatch.undo()
    run = run_config("sasrec", load_dataset(folder), 3, "tiny", {**FIXED, **STRONG})
    by_hand = RecommenderTrainer(run.recommender, load_dataset(folder), None, 3, CPU)
    by_hand.unpack(state[STATE])
    by_hand.train_epoch()
    by_hand.best = {}
    assert by_hand.pack() == after[STATE]
    unchanged, same = taken(config(1, MILD), state, 1)
    assert same[STATE] != after[STATE] and unchanged[0]["score"] >= 0


def test_a_member_that_goes_on_by_itself_equals_a_straight_run(config, folder):
    straight, end = taken(config(2, MILD), None, 4)
    first, state = taken(config(2, MILD), None, 2)
    rest, again = taken(config(2, MILD), state, 2)
    assert [r["score"] for r in first + rest] == [r["score"] for r in straight] and again[STATE] == end[STATE]
    assert {r["weights_of"] for r in first + rest} == {-1}
    assert list(epochs(config(2, MILD), end, CPU)) == [], "all its epochs are trained"


def test_patience_ends_no_member(config, monkeypatch):
    monkeypatch.setattr(RecommenderTrainer, "finished", lambda self: pytest.fail("a member does not ask"))
    assert [r["epoch"] for r, _ in epochs(config(0, MILD), None, CPU)] == [1, 2, 3, 4]


def test_a_loss_that_is_not_finite_scores_below_all_until_the_place_is_taken(config, monkeypatch):
    _, sane = taken(config(0, MILD), None, 2)
    train_epoch = RecommenderTrainer.train_epoch

    def bursting(self):
        if self.epoch == 1 and self.config.learning_rate > 1e-3:
            raise FloatingPointError("loss is nan at epoch 2, step 5")
        return train_epoch(self)

    monkeypatch.setattr(RecommenderTrainer, "train_epoch", bursting)
    reports, state = taken(config(1, STRONG), None, 3)
    assert [report["epoch"] for report in reports] == [1, 2, 3]
    assert reports[0]["score"] >= 0 and [report["score"] for report in reports[1:]] == [DIVERGED, DIVERGED]
    assert reports[1]["diverged"] == reports[2]["diverged"] == "loss is nan at epoch 2, step 5"
    (again,), _ = taken(config(1, MILD), state, 1)
    assert again["score"] == DIVERGED, "its weights are lost, whatever values it has"
    (saved,), _ = taken(config(1, MILD), sane, 1)
    assert saved["score"] >= 0 and saved["diverged"] == "" and saved["weights_of"] == 0


def test_only_validation_is_read_and_the_checkpoint_holds_no_former_weights(config, monkeypatch):
    read, examples = [], recommender_training.evaluation_examples
    monkeypatch.setattr(
        recommender_training,
        "evaluation_examples",
        lambda data, split, most: read.append(split) or examples(data, split, most),
    )
    _, state = taken(config(0, MILD), None, 2)
    assert set(read) == {"valid"}
    assert json.loads(state[PAST]) == {"epoch": 2, "member": 0, "diverged": None}
    assert not any(name.startswith("extra/") for name in load(state[STATE]))
