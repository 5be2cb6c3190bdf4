"""Two workers compute what one computes with the joint batch, tell each other of faults, and write everything once."""

import io
import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from several_workers import WORLD, together
from test_recommender_training import trainer
from test_stages import SMALL

from bbqrec import distributed
from bbqrec.data import batches, load_dataset
from bbqrec.datasets.synthetic import SyntheticConfig, prepare_synthetic
from bbqrec.examples import evaluation_examples
from bbqrec.methods import run_config
from bbqrec.recommender_training import RecommenderTrainer
from bbqrec.stages import run_quantizer, run_recommender
from bbqrec.store import Store
from bbqrec.training import epoch_generator

GENERATORS = {
    "prefix": {"history": "prefix"},
    "packed": {"history": "packed", "objective": "children", "label_smoothing": 0.0, "batch_size": 3},
    "one row a batch": {"history": "packed", "batch_size": 1},  # the second worker's share is empty
}
ITEM_MODELS = ("sasrec", "gru4rec-f", "missrec", "vq-rec")
STEPS = 6


def loops(folder: Path) -> dict[str, RecommenderTrainer]:
    """Untrained, without what each worker draws for itself."""
    exact = {"dropout": 0.0, "precision": "float32"}
    found = {name: trainer(**exact, **changes) for name, changes in GENERATORS.items()}
    dataset = load_dataset(folder)
    overrides = {f"recommender.{name}": value for name, value in exact.items()}
    for method in ITEM_MODELS:
        config = run_config(method, dataset, 3, "tiny", overrides).recommender
        found[method] = RecommenderTrainer(config, dataset, None, 3, torch.device("cpu"))
    return found


def computed(loop: RecommenderTrainer) -> dict[str, np.ndarray]:
    """The first step's gradients, the losses of a few steps, and an epoch's report and ranks from where that ends."""
    rows = itertools.cycle(batches(loop.lengths, loop.config.batch_size, torch.Generator().manual_seed(1)))
    losses, gradients = [], None
    for _ in range(STEPS):
        loss, targets = loop.step(next(rows))
        losses.append((float(loss), targets))
        if gradients is None:
            parts = [torch.zeros_like(p) if p.grad is None else p.grad for p in loop.model.parameters()]
            gradients = torch.cat([part.flatten() for part in parts])
    report = {name: value for name, value in loop.train_epoch().items() if "seconds" not in name}
    ranks = loop.task.ranks(evaluation_examples(loop.dataset, "valid", loop.config.max_history), judging=True)
    return {
        "gradients": gradients.numpy(),
        "losses": np.array(losses),
        "report": np.array(list(report.values())),
        "ranks": ranks,
        "weights": np.concatenate([value.numpy().ravel() for value in loop.model.state_dict().values()]),
    }


def compute_all(folder: Path, data: Path) -> None:
    """What every worker does: it leaves <name>-<rank>.npz."""
    for name, loop in loops(data).items():
        np.savez(folder / f"{name}-{distributed.rank()}.npz", **computed(loop))


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "shared"
    sizes = {"users": 61, "items": 222, "mean_length": 6.0, "max_length": 12, "text_width": 10, "image_width": 14}
    prepare_synthetic(SyntheticConfig(seed=5, **sizes), folder, "shared")
    return folder


@pytest.fixture(scope="module")
def joint(data) -> dict[str, dict[str, np.ndarray]]:
    return {name: computed(loop) for name, loop in loops(data).items()}


@pytest.fixture(scope="module")
def shared(data, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("shared") / "work"
    together(compute_all, folder, data)
    return folder


@pytest.mark.parametrize("name", [*GENERATORS, *ITEM_MODELS])
def test_two_workers_equal_one_with_the_joint_batch(name, joint, shared):
    one = joint[name]
    first, second = (np.load(shared / f"{name}-{rank}.npz") for rank in range(WORLD))
    for part in one:
        np.testing.assert_array_equal(first[part], second[part], err_msg=part)
    assert np.abs(one["gradients"]).max() > 1e-3
    np.testing.assert_allclose(first["gradients"], one["gradients"], rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(first["losses"][:, 1], one["losses"][:, 1])
    np.testing.assert_allclose(first["losses"][:, 0], one["losses"][:, 0], rtol=1e-4)
    np.testing.assert_allclose(first["report"], one["report"], rtol=0.02, atol=0.02)
    assert (first["ranks"] == one["ranks"]).mean() > 0.9


def test_workers_draw_different_dropout_and_cut_the_same_batches():
    drawn = []
    for worker in (0, 1, 2):
        explicit = torch.rand(5, generator=epoch_generator(3, 4, worker))
        drawn.append((explicit, torch.rand(5)))
    alone = torch.rand(5, generator=epoch_generator(3, 4))
    assert all(torch.equal(explicit, alone) for explicit, _ in drawn)
    assert torch.equal(drawn[0][1], torch.rand(5))  # the first worker's are those of one that is alone
    assert not torch.equal(drawn[1][1], drawn[0][1]) and not torch.equal(drawn[1][1], drawn[2][1])


def train_in_two_attempts(folder: Path, data: Path, url: str, cut: int) -> None:
    """Trains a run on the store, first up to `cut` reports, then to the end. Leaves what each worker was told."""
    dataset, store, told = load_dataset(data), Store(url), []
    run = run_config("bbqrec", dataset, 3, "tiny", SMALL)
    for attempt in ("a", "b"):
        reports = run_recommender(run, dataset, store, attempt=attempt, device="cpu")
        for report in reports:
            told.append((report.epoch, {k: v for k, v in report.metrics.items() if "seconds" not in k}))
            if len(told) == cut:
                reports.close()
                break
    (folder / f"{distributed.rank()}.json").write_text(json.dumps(told))


def test_a_stage_on_two_workers_is_written_once_and_goes_on_where_it_was_cut(data, tmp_path):
    dataset = load_dataset(data)
    run = run_config("bbqrec", dataset, 3, "tiny", SMALL)
    store = Store(tmp_path / "store")
    list(run_quantizer(run, dataset, store, attempt="a", device="cpu"))
    key = run.recommender_key
    results = []
    for cut in (2, 99):
        together(train_in_two_attempts, tmp_path / f"work{cut}", data, store.url, cut)
        told = [(tmp_path / f"work{cut}" / f"{rank}.json").read_text() for rank in range(WORLD)]
        assert told[0] == told[1] and [epoch for epoch, _ in json.loads(told[0])] == [1, 2, 3, 4]
        row = store.read_json("recommender", key, "row.json")
        assert row["provenance"]["workers"] == WORLD and row["quantizer_provenance"]["workers"] == 1
        assert [source["workers"] for source in row["provenance"]["sources"]] == [WORLD] * (2 if cut == 2 else 1)
        assert row["costs"]["recommender_epochs"] == 4 and store.load_progress("recommender", key) is None
        ranks = store.read_bytes("recommender", key, "ranks_test.npy")
        assert (np.load(io.BytesIO(ranks), allow_pickle=False) > 0).sum() == dataset.num_users
        weights = store.read_bytes("recommender", key, "model.safetensors")
        results.append((told, ranks, weights, row["scores"]))
        folder = store.get("recommender", key)
        assert [path.name for path in folder.parent.iterdir() if path.is_dir()] == [folder.name]  # no second attempt
        (folder.parent / "manifest.json").unlink()
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()
    assert results[0] == results[1]


def meet_faults(folder: Path, data: Path) -> None:
    """Worker 1 alone finds scores that are no numbers; worker 0 alone has something to say."""
    loop = loops(data)["sasrec"]
    if distributed.rank() == 1:
        with torch.no_grad():
            loop.model.input.ids.weight.fill_(torch.inf)
    with pytest.raises(FloatingPointError, match="another worker" if distributed.rank() == 0 else "not finite"):
        loop.task.ranks(loop.validation, judging=False)
    for data in (None, b"", b"\x00words"):
        assert distributed.agreed(data if distributed.rank() == 0 else b"else") == data
    with pytest.raises(ValueError, match="a quantizer is trained by one worker, not by 2"):
        distributed.require_one_worker("a quantizer")
    top1 = run_config("gru4rec", loop.dataset, 3, "tiny", {"recommender.loss": "top1"}).recommender
    with pytest.raises(ValueError, match="gru4rec with this loss is trained by one worker"):
        RecommenderTrainer(top1, loop.dataset, None, 3, torch.device("cpu"))


def test_a_fault_of_one_worker_ends_the_others_too(data, tmp_path):
    together(meet_faults, tmp_path / "work", data)


@pytest.mark.parametrize(
    ("method", "loss", "shareable"),
    [
        ("gru4rec", "full", True), ("gru4rec", "top1", False), ("sasrec", "full", True), ("sasrec", "bce", True),
        ("missrec", "full", True), ("missrec", "in-batch", False), ("vq-rec", "contrastive", False),
    ],
)  # fmt: skip
def test_losses_that_compare_the_examples_of_a_batch_are_not_shared_out(data, method, loss, shareable):
    config = run_config(method, load_dataset(data), 3, "tiny", {"recommender.loss": loss}).recommender
    assert config.shareable == shareable
