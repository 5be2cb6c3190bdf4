"""Both stages against a real store: published once, cut anywhere, resumed bit for bit, refused by other configs."""

import io
import itertools
import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load

from bbqrec import tasks
from bbqrec.artefacts import load_codes, load_item_vectors
from bbqrec.config import QuantizerConfig
from bbqrec.errors import InputError
from bbqrec.examples import evaluation_examples, popularity
from bbqrec.methods import has_field, run_config
from bbqrec.metrics import scores
from bbqrec.quantizer_training import QuantizerTrainer
from bbqrec.recommendation import recommend
from bbqrec.semantic_ids import collisions
from bbqrec.stages import resolve_device, run_all, run_quantizer, run_recommender
from bbqrec.store import Store

SMALL = {
    "quantizer.levels": 2, "quantizer.codes": 9, "quantizer.width": 8, "quantizer.hidden": 10,
    "quantizer.club_hidden": 6, "quantizer.sequence_heads": 2, "quantizer.batch_users": 16, "quantizer.epochs": 4,
    "recommender.d_model": 12, "recommender.heads": 2, "recommender.head_width": 4, "recommender.d_ff": 8,
    "recommender.encoder_layers": 1, "recommender.batch_size": 20, "recommender.epochs": 4, "recommender.dropout": 0.3,
    "recommender.warmup_steps": 4, "recommender.beam": 300,
}  # fmt: skip
QUANTIZER_FILES = {"codes.npy", "vectors.npy", "codebooks.npy", "model.safetensors"}
RECOMMENDER_FILES = {"ranks_valid.npy", "ranks_test.npy", "model.safetensors"}
RECORDS = {"config.json", "metrics.jsonl", "row.json"}


@pytest.fixture(scope="module")
def run(tiny_dataset):
    return run_config("bbqrec", tiny_dataset, 3, "tiny", SMALL)


@pytest.fixture(scope="module")
def straight(run, tiny_dataset, tmp_path_factory):
    """Both stages without an interruption, and their reports."""
    store = Store(tmp_path_factory.mktemp("straight"))
    about = {"ray": "stage one"}
    first = list(run_quantizer(run, tiny_dataset, store, attempt="a", provenance=about, device="cpu"))
    second = list(run_recommender(run, tiny_dataset, store, attempt="a", device="cpu", provenance={"ray": "none"}))
    return store, first, second


def array(store: Store, kind: str, key: str, name: str) -> np.ndarray:
    return np.load(io.BytesIO(store.read_bytes(kind, key, name)), allow_pickle=False)


def metrics(store: Store, kind: str, key: str) -> list[dict]:
    lines = store.read_bytes(kind, key, "metrics.jsonl").decode().splitlines()
    return [{k: v for k, v in json.loads(line).items() if "seconds" not in k} for line in lines]


def files(store: Store, kind: str, key: str) -> set[str]:
    return {path.name for path in store.get(kind, key).iterdir()}


def assert_same_results(run, one: Store, other: Store, stages=("quantizer", "recommender")) -> None:
    for kind, key, names in (
        ("quantizer", run.quantizer_key, QUANTIZER_FILES),
        ("recommender", run.recommender_key, RECOMMENDER_FILES),
    ):
        if kind in stages:
            for name in names:
                assert one.read_bytes(kind, key, name) == other.read_bytes(kind, key, name), name
            assert metrics(one, kind, key) == metrics(other, kind, key)


def test_reports_and_files(run, tiny_dataset, straight):
    store, first, second = straight
    assert [(r.stage, r.epoch, r.epochs) for r in first] == [("quantizer", n, 4) for n in (1, 2, 3, 4)]
    assert [(r.stage, r.epoch, r.epochs) for r in second] == [("recommender", n, 4) for n in (1, 2, 3, 4)]
    assert all("valid/ndcg@10" in r.metrics for r in second)
    assert not any("test" in name for r in (*first, *second) for name in r.metrics)
    assert files(store, "quantizer", run.quantizer_key) == QUANTIZER_FILES | RECORDS
    assert files(store, "recommender", run.recommender_key) == RECOMMENDER_FILES | RECORDS
    assert array(store, "quantizer", run.quantizer_key, "codes.npy").dtype == np.int32
    assert array(store, "quantizer", run.quantizer_key, "codes.npy").shape == (tiny_dataset.num_items, 2, 3)
    assert store.load_progress("quantizer", run.quantizer_key) is None
    assert store.load_progress("recommender", run.recommender_key) is None


def test_row_holds_scores_costs_and_origin(run, tiny_dataset, straight):
    store, first, second = straight
    row = store.read_json("recommender", run.recommender_key, "row.json")
    assert (row["run_key"], row["quantizer_key"]) == (run.recommender_key, run.quantizer_key)
    assert (row["dataset"], row["fingerprint"], row["seed"]) == (run.dataset, run.fingerprint, 3)
    assert row["config"] == run.described() == store.read_json("recommender", run.recommender_key, "config.json")
    for split in ("valid", "test"):
        ranks = array(store, "recommender", run.recommender_key, f"ranks_{split}.npy")
        assert ranks.shape == (tiny_dataset.num_users,) and ranks.dtype == np.int32
        assert sorted(set(ranks.tolist()))[-1] <= tiny_dataset.num_items  # the beam holds every ID
        assert row["scores"][split] == pytest.approx(scores(ranks))
    best = max(range(4), key=lambda n: (second[n].metrics["valid/ndcg@10"], -n))
    assert row["selected_by"] == {
        "ndcg@10": second[best].metrics["valid/ndcg@10"],
        "users": min(tiny_dataset.num_users, run.recommender.validation_users or tiny_dataset.num_users),
        "beam": run.recommender.validation_beam,
    }
    assert row["costs"]["best_epoch"] == best + 1 and row["costs"]["recommender_epochs"] == 4
    assert row["costs"]["quantizer_epochs"] == 4 and row["costs"]["quantizer_seconds"] > 0
    threads = torch.get_num_threads()
    for stage in ("quantizer", "recommender"):
        costs = {name: row["costs"][f"{stage}_{name}"] for name in ("seconds", "wall_seconds", "core_seconds")}
        assert costs["wall_seconds"] > costs["seconds"] > 0  # it holds the work, the reading and the checkpoints
        assert costs["core_seconds"] == pytest.approx(costs["seconds"] * threads)
        assert row["costs"][f"{stage}_gpu_seconds"] == 0
    assert row["costs"]["peak_memory_bytes"] > 1e7 < row["costs"]["quantizer_peak_memory_bytes"]
    quantizer = store.read_json("quantizer", run.quantizer_key, "row.json")
    assert (quantizer["dataset"], quantizer["fingerprint"], quantizer["seed"]) == (run.dataset, run.fingerprint, 3)
    assert quantizer["config"]["quantizer"] == run.described()["quantizer"] and "recommender" not in quantizer["config"]
    assert row["collisions"]["excess"] == first[-1].metrics["codes/excess"]
    assert row["collisions"]["colliding_items"] == first[-1].metrics["codes/colliding_items"]
    assert row["provenance"]["ray"] == "none" and row["provenance"]["attempts"] == 1
    own = store.read_json("quantizer", run.quantizer_key, "row.json")["provenance"]
    assert row["quantizer_provenance"] == own and own["ray"] == "stage one"
    assert row["provenance"]["precision"] in ("float32", "bfloat16")
    assert {"version", "commit", "dirty", "host", "device", "torch", "python", "started", "finished"} <= set(
        row["provenance"]
    )


def test_a_trial_trains_like_a_run_and_never_reads_the_test_split(run, tiny_dataset, straight, tmp_path, monkeypatch):
    store, trials = straight[0], Store(tmp_path)
    trials.publish("quantizer", run.quantizer_key, store.get("quantizer", run.quantizer_key), "copy")
    read = []

    def examples(dataset, split, max_history):
        read.append(split)
        return evaluation_examples(dataset, split, max_history)

    monkeypatch.setattr("bbqrec.recommender_training.evaluation_examples", examples)
    for _ in range(2):  # cut after two epochs
        reports = run_recommender(run, tiny_dataset, trials, attempt="a", device="cpu", trial=True)
        found = list(itertools.islice(reports, 2))
        assert [(r.stage, r.epochs) for r in found] == [("recommender", 4)] * 2
        reports.close()
    assert list(run_recommender(run, tiny_dataset, trials, attempt="a", device="cpu", trial=True)) == []
    assert list(run_recommender(run, tiny_dataset, trials, attempt="a", device="cpu", trial=True)) == []
    assert set(read) == {"valid"}
    key = run.recommender_key
    assert trials.keys("recommender") == [] and trials.keys("trial") == [key]
    assert files(trials, "trial", key) == RECORDS
    assert metrics(trials, "trial", key) == metrics(store, "recommender", key)
    row, judged = (s.read_json(kind, key, "row.json") for s, kind in ((trials, "trial"), (store, "recommender")))
    assert row["scores"] == {} and row["selected_by"] == judged["selected_by"] and row["config"] == judged["config"]
    assert not any("test" in name for line in metrics(trials, "trial", key) for name in line)


def test_a_quantizer_of_an_older_version_is_read_like_any_other(run, tiny_dataset, straight, tmp_path):
    """Its row says less of what it cost and of what it was made from."""
    store, folder = Store(tmp_path / "store"), tmp_path / "older"
    shutil.copytree(straight[0].get("quantizer", run.quantizer_key), folder)
    row = json.loads((folder / "row.json").read_text())
    costs = {name: row["costs"][name] for name in ("seconds", "epochs", "parameters", "peak_memory_bytes")}
    older = {name: row[name] for name in ("key", "collisions", "codebook", "provenance")} | {"costs": costs}
    (folder / "row.json").write_text(json.dumps(older))
    store.publish("quantizer", run.quantizer_key, folder, "a")
    list(run_recommender(run, tiny_dataset, store, attempt="a", device="cpu"))
    assert_same_results(run, straight[0], store, stages=("recommender",))
    found = store.read_json("recommender", run.recommender_key, "row.json")["costs"]
    assert found["quantizer_seconds"] == costs["seconds"] and "quantizer_wall_seconds" not in found


def test_a_published_stage_is_not_computed_again(run, tiny_dataset, straight, monkeypatch):
    store, _, _ = straight
    monkeypatch.setattr("bbqrec.stages.QuantizerTrainer", None)
    monkeypatch.setattr("bbqrec.stages.RecommenderTrainer", None)
    assert list(run_quantizer(run, tiny_dataset, store, attempt="b")) == []
    assert list(run_recommender(run, tiny_dataset, store, attempt="b")) == []


@pytest.mark.parametrize("cuts", [(1,), (3, 1), (4,)], ids=str)
def test_cut_and_resumed_equals_straight_bit_for_bit(run, tiny_dataset, straight, tmp_path, cuts):
    """`cuts`: after how many reports each attempt ends; 4 is behind the last checkpoint but before publishing."""
    store = Store(tmp_path / "store")
    for stage, key in ((run_quantizer, run.quantizer_key), (run_recommender, run.recommender_key)):
        kind, done = stage.__name__.removeprefix("run_"), 0
        for number, cut in enumerate(cuts):
            reports = stage(run, tiny_dataset, store, attempt=f"try{number}", device="cpu")
            for _ in range(min(cut, 4 - done)):
                report = next(reports)
                done += 1
                assert report.epoch == done == store.load_progress(kind, key).epoch  # saved before it is told
            reports.close()
            torch.manual_seed(number)
            assert not store.has(kind, key)
        rest = list(stage(run, tiny_dataset, store, attempt="last", device="cpu"))
        assert [r.epoch for r in rest] == list(range(done + 1, 5)) and store.has(kind, key)
    assert_same_results(run, straight[0], store)
    row = store.read_json("recommender", run.recommender_key, "row.json")
    assert row["provenance"]["attempts"] == len(cuts) + 1


def test_a_damaged_checkpoint_costs_an_epoch_and_changes_nothing(run, tiny_dataset, straight, tmp_path):
    store = Store(tmp_path / "store")
    reports = run_quantizer(run, tiny_dataset, store, attempt="a", device="cpu")
    for _ in range(3):
        next(reports)
    reports.close()
    newest = tmp_path / "store" / "quantizer" / run.quantizer_key / "progress" / "a-3" / "state.safetensors"
    newest.write_bytes(newest.read_bytes()[:-1])
    rest = list(run_quantizer(run, tiny_dataset, store, attempt="b", device="cpu"))
    assert [r.epoch for r in rest] == [3, 4]
    assert_same_results(run, straight[0], store, stages=("quantizer",))


def test_a_recommender_needs_its_quantizer(run, tiny_dataset, tmp_path):
    with pytest.raises(InputError, match=f"quantizer {run.quantizer_key} is not in store"):
        next(run_recommender(run, tiny_dataset, Store(tmp_path / "store"), attempt="a"))


def test_another_data_set_is_refused(run, tiny_dataset, straight, tmp_path):
    other = replace(tiny_dataset, fingerprint="f" * 64)
    for stage in (run_quantizer, run_recommender):
        with pytest.raises(InputError, match="the run was planned for"):
            next(stage(run, other, Store(tmp_path / "store"), attempt="a"))


def test_users_of_three_items_leave_nothing_to_train_on(run, tiny_dataset, tmp_path):
    starts = tiny_dataset.offsets[:-1, None] + np.arange(3)
    short = replace(tiny_dataset, offsets=np.arange(0, starts.size + 1, 3), items=tiny_dataset.items[starts.ravel()])
    for stage in (run_quantizer, run_recommender):
        with pytest.raises(InputError, match="data set tiny has nothing to learn from: every user has 3 items"):
            next(stage(run, short, Store(tmp_path / "store"), attempt="a"))


@pytest.mark.parametrize("stage", ["quantizer", "recommender"])
def test_a_loss_that_is_not_finite_names_stage_epoch_step_and_learning_rate(run, tiny_dataset, straight, stage):
    steep = replace(run, **{stage: replace(getattr(run, stage), learning_rate=1e25)})
    said = rf"^{stage} diverged with .*\blearning_rate=1e\+25: .*(nan|inf) at epoch \d+, step \d+: lower {stage}\."
    with pytest.raises(InputError, match=said):
        for train in (run_quantizer, run_recommender):
            list(train(steep, tiny_dataset, straight[0], attempt="steep", device="cpu"))


def test_an_artefact_of_another_config_is_refused(run, straight, tmp_path):
    """Files of another maker under this key, checksums and all: the stage boundary knows its maker."""
    folder = tmp_path / "files"
    folder.mkdir()
    for path in straight[0].get("quantizer", run.quantizer_key).iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    config = json.loads((folder / "config.json").read_text()) | {"alpha": 9.0}
    (folder / "config.json").write_text(json.dumps(config))
    store = Store(tmp_path / "store")
    store.publish("quantizer", run.quantizer_key, folder, "a")
    with pytest.raises(InputError, match="made by another config"):
        load_codes(run, store)


def test_a_damaged_quantizer_is_computed_again(run, tiny_dataset, straight, tmp_path):
    store = Store(tmp_path / "store")
    list(run_quantizer(run, tiny_dataset, store, attempt="a", device="cpu"))
    path = store.get("quantizer", run.quantizer_key) / "codes.npy"
    path.write_bytes(b"x" + path.read_bytes()[1:])
    with pytest.raises(InputError, match="is not in store"):
        load_codes(run, store)
    list(run_quantizer(run, tiny_dataset, store, attempt="b", device="cpu"))
    assert_same_results(run, straight[0], store, stages=("quantizer",))


def test_loaded_codes_are_the_trained_ones(run, tiny_dataset, straight):
    codes = load_codes(run, straight[0])
    trainer = QuantizerTrainer(run.quantizer, tiny_dataset, 3, torch.device("cpu"))
    while not trainer.finished():
        trainer.train_epoch()
    expected = trainer.model.codes(tiny_dataset.num_items)
    for name in ("codes", "vectors", "codebooks"):
        np.testing.assert_array_equal(getattr(codes, name), getattr(expected, name))
    assert codes.components == ("id", "text", "image")


def test_recommendations_use_the_whole_history_and_the_selected_weights(run, tiny_dataset, straight, monkeypatch):
    """With the user's last item cut off, the list ranks the test item where ranks_test says.

    The popularity stays that of the whole: `shorter` counts one interaction of each user less.
    """
    store, counts = straight[0], popularity(tiny_dataset)
    monkeypatch.setattr(tasks, "popularity", lambda dataset: counts)
    shorter = replace(
        tiny_dataset,
        offsets=np.concatenate([[0], np.cumsum(np.diff(tiny_dataset.offsets) - 1)]),
        items=np.delete(tiny_dataset.items, tiny_dataset.offsets[1:] - 1),
    )
    ranks = array(store, "recommender", run.recommender_key, "ranks_test.npy")
    row = {str(item): n for n, item in enumerate(tiny_dataset.item_ids)}
    for user in (0, 7):
        found = recommend(store, run.recommender_key, shorter, str(tiny_dataset.user_ids[user]), 300)
        items = [row[item] for item, _, _ in found]
        target = tiny_dataset.items[tiny_dataset.offsets[user + 1] - 1]
        assert len(set(items)) == len(items) == tiny_dataset.num_items
        assert items.index(target) + 1 == ranks[user]
        values = [score for _, _, score in found]
        assert values == sorted(values, reverse=True)
    with pytest.raises(InputError, match="user 'nobody' is not in data set"):
        recommend(store, run.recommender_key, tiny_dataset, "nobody", 5)
    with pytest.raises(InputError, match="was trained on"):
        recommend(store, run.recommender_key, replace(tiny_dataset, fingerprint="f" * 64), "U00", 5)
    with pytest.raises(InputError):
        recommend(store, "0" * 16, tiny_dataset, "U00", 5)


@pytest.mark.parametrize("change", [{"quantizer": {"colour": 3}}, {"recommender": {"heads": 4}}], ids=str)
def test_a_run_of_another_version_recommends_nothing(run, tiny_dataset, straight, tmp_path, change):
    config = run.described()
    (stage, fields), *_ = change.items()
    (tmp_path / "config.json").write_text(json.dumps(config | {stage: config[stage] | fields}))
    store = Store(tmp_path / "store")
    store.publish("recommender", "0" * 16, tmp_path, "a")
    with pytest.raises(InputError, match=f"run {'0' * 16} was made by another version of bbqrec: train it again"):
        recommend(store, "0" * 16, tiny_dataset, "U00", 5)


def test_another_version_of_a_stage_is_another_version(tiny_dataset, straight, monkeypatch):
    monkeypatch.setattr(QuantizerConfig, "version", QuantizerConfig.version + 1)
    with pytest.raises(InputError, match="another version"):
        recommend(straight[0], straight[0].keys("recommender")[0], tiny_dataset, "U00", 5)


@pytest.fixture(scope="module")
def taught(tiny_dataset):
    return run_config("letter", tiny_dataset, 3, "tiny", {p: v for p, v in SMALL.items() if has_field("letter", p)} | {
        "quantizer.clusters": 3, "quantizer.batch_items": 30, "quantizer.passes": 2,
    })  # fmt: skip


@pytest.fixture(scope="module")
def lesson(taught, tiny_dataset, tmp_path_factory):
    """A taught run from scratch, and its reports."""
    store = Store(tmp_path_factory.mktemp("lesson"))
    return store, list(run_all(taught, tiny_dataset, store, attempt="a", device="cpu"))


def test_a_teacher_is_trained_first_and_its_vectors_are_what_is_learned_from(taught, tiny_dataset, lesson):
    store, reports = lesson
    assert [report.stage for report in reports] == ["recommender"] * 4 + ["quantizer"] * 4 + ["recommender"] * 4
    assert set(store.keys("recommender")) == {taught.recommender_key, taught.teacher.recommender_key}
    vectors = load_item_vectors(taught.teacher, store)
    weights = load(store.read_bytes("quantizer", taught.quantizer_key, "model.safetensors"))
    assert vectors.shape == (tiny_dataset.num_items, taught.teacher.recommender.d_model)
    np.testing.assert_array_equal(weights["teacher"].numpy(), vectors)
    best = load(store.read_bytes("recommender", taught.teacher.recommender_key, "model.safetensors"))
    np.testing.assert_array_equal(best["input.ids.weight"].numpy(), vectors)


def test_a_teacher_that_the_store_holds_is_not_trained_again(taught, tiny_dataset, lesson, tmp_path):
    store = Store(tmp_path / "store")
    alone = run_config("sasrec", tiny_dataset, 3, "tiny", {p: v for p, v in SMALL.items() if has_field("sasrec", p)})
    assert alone == taught.teacher
    list(run_all(alone, tiny_dataset, store, attempt="a", device="cpu"))
    rest = list(run_all(taught, tiny_dataset, store, attempt="b", device="cpu"))
    assert [report.stage for report in rest] == ["quantizer"] * 4 + ["recommender"] * 4
    for key in (taught.recommender_key, alone.recommender_key):
        assert store.read_bytes("recommender", key, "ranks_test.npy") == lesson[0].read_bytes(
            "recommender", key, "ranks_test.npy"
        )


def test_a_quantizer_needs_its_teacher(taught, tiny_dataset, lesson, tmp_path):
    store = Store(tmp_path / "store")
    key = taught.teacher.recommender_key
    with pytest.raises(InputError, match=f"no item_vectors.npy of recommender {key}"):
        next(run_quantizer(taught, tiny_dataset, store, attempt="a"))
    with pytest.raises(ValueError, match="quantizer/letter has no teacher"):
        next(run_quantizer(replace(taught, teacher=None), tiny_dataset, store, attempt="a"))


def test_a_taught_quantizer_cut_and_resumed_equals_straight_bit_for_bit(taught, tiny_dataset, lesson, tmp_path):
    store = Store(tmp_path / "store")
    list(run_all(taught.teacher, tiny_dataset, store, attempt="a", device="cpu"))
    reports = run_quantizer(taught, tiny_dataset, store, attempt="a", device="cpu")
    next(reports), next(reports)
    reports.close()
    torch.manual_seed(5)
    assert [r.epoch for r in run_quantizer(taught, tiny_dataset, store, attempt="b", device="cpu")] == [3, 4]
    assert_same_results(taught, lesson[0], store, stages=("quantizer",))


def test_a_row_counts_raw_codes_and_the_ids_that_are_generated(taught, tiny_dataset, lesson):
    store, reports = lesson
    row = store.read_json("recommender", taught.recommender_key, "row.json")
    codes = load_codes(taught, store)
    assert codes.components == ("text",) and row["config"] == taught.described()
    assert row["collisions"]["excess"] == reports[7].metrics["codes/excess"] > row["id_collisions"]["excess"]
    assert row["id_collisions"]["excess"] == collisions(codes.codes).excess
    found = recommend(store, taught.recommender_key, tiny_dataset, str(tiny_dataset.user_ids[0]), 7)
    assert len({item for item, _, _ in found}) == 7


def test_devices():
    assert resolve_device("cpu").type == "cpu"
    assert resolve_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    if not torch.cuda.is_available():
        with pytest.raises(InputError, match="CUDA"):
            resolve_device("cuda")
