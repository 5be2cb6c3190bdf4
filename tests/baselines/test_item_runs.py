"""A model over items from the command to the store and back, without a quantizer."""

import io
from dataclasses import replace

import numpy as np
import pytest

from bbqrec.cli import main
from bbqrec.datasets.synthetic import SyntheticConfig, prepare_synthetic
from bbqrec.methods import run_config
from bbqrec.metrics import scores
from bbqrec.recommendation import recommend
from bbqrec.stages import run_all
from bbqrec.store import Store

SMALL = {"recommender.d_model": 8, "recommender.epochs": 3, "recommender.batch_size": 20}


@pytest.fixture(scope="module")
def run(tiny_dataset):
    return run_config("sasrec-f", tiny_dataset, 3, "tiny", SMALL)


@pytest.fixture(scope="module")
def finished(run, tiny_dataset, tmp_path_factory):
    store = Store(tmp_path_factory.mktemp("items"))
    return store, list(run_all(run, tiny_dataset, store, attempt="a", device="cpu"))


def array(store: Store, run, name: str) -> np.ndarray:
    return np.load(io.BytesIO(store.read_bytes("recommender", run.recommender_key, name)), allow_pickle=False)


def test_one_stage_and_what_it_leaves(run, finished, tiny_dataset):
    store, reports = finished
    assert [(r.stage, r.epoch) for r in reports] == [("recommender", n) for n in (1, 2, 3)]
    assert not any("test" in name for r in reports for name in r.metrics) and store.keys("quantizer") == []
    row = store.read_json("recommender", run.recommender_key, "row.json")
    assert row["quantizer_key"] is None and row["collisions"] == row["id_collisions"] == row["codebook"] == {}
    assert row["config"] == run.described() and not any("quantizer" in name for name in row["costs"])
    assert set(row["selected_by"]) == {"ndcg@10", "users"}
    for split in ("valid", "test"):
        ranks = array(store, run, f"ranks_{split}.npy")
        assert ranks.min() >= 1 and ranks.max() <= tiny_dataset.num_items
        assert row["scores"][split] == pytest.approx(scores(ranks))
    assert array(store, run, "item_vectors.npy").shape == (tiny_dataset.num_items, 8)


def test_what_is_there_is_not_computed_again(run, finished, tiny_dataset, monkeypatch):
    monkeypatch.setattr("bbqrec.stages.RecommenderTrainer", None)
    assert list(run_all(run, tiny_dataset, finished[0], attempt="b")) == []


def test_recommend_agrees_with_the_test_ranks(run, finished, tiny_dataset):
    """A user's history but for the last item, as the test split has it, puts that item at its rank."""
    store, _ = finished
    ranks = array(store, run, "ranks_test.npy")
    for user in (0, 7, 31):
        start, end = tiny_dataset.offsets[user], tiny_dataset.offsets[user + 1]
        found = recommend(store, run.recommender_key, tiny_dataset, str(tiny_dataset.user_ids[user]), 5)
        assert len(found) == 5 and [s for _, _, s in found] == sorted((s for _, _, s in found), reverse=True)
        short = _without_last(tiny_dataset, user)
        listed = recommend(store, run.recommender_key, short, str(short.user_ids[user]), short.num_items)
        names = [item for item, _, _ in listed]
        assert names.index(str(tiny_dataset.item_ids[tiny_dataset.items[end - 1]])) + 1 == ranks[user]
        assert end - start >= 3


def _without_last(dataset, user: int):
    offsets = dataset.offsets.copy()
    offsets[user + 1 :] -= 1
    return replace(dataset, offsets=offsets, items=np.delete(dataset.items, dataset.offsets[user + 1] - 1))


def test_the_commands(tmp_path, capsys):
    data = tmp_path / "data"
    sizes = {"values": (2, 2, 2, 2), "items": 97, "mean_length": 6.0, "max_length": 9, "text_width": 10}
    prepare_synthetic(SyntheticConfig(users=53, seed=3, **sizes), data, "toy")
    train = ["train", "--dataset", str(data), "--method", "sasrec", "--profile", "tiny", "--store", str(tmp_path / "s")]
    main([*train, "--set", "recommender.epochs=2", "recommender.d_model=8"])
    lines = capsys.readouterr().out.splitlines()
    assert sum(line.startswith("recommender ") for line in lines) == 2
    assert not any(line.startswith("quantizer") for line in lines)
    key = lines[-1].split()[-1]
    main(["evaluate", "--store", str(tmp_path / "s"), "--run", key])
    with pytest.raises(SystemExit) as ended:
        main([*train, "--set", "quantizer.levels=2"])
    assert ended.value.code == 2 and "method sasrec has no quantizer" in capsys.readouterr().err
