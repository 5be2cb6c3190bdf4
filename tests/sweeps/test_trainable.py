"""One trial: its configuration as JSON, and where it finds the data set."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from bbqrec.data import load_dataset
from bbqrec.errors import Diverged, InputError
from bbqrec.methods import run_from_json
from sweeps import trainable
from sweeps.trainable import _reports, dataset_of, trial_config


def test_a_trial_is_plain_json_and_gives_the_run_back(study, store):
    run = study(methods=("bbqrec/no-text",), overrides={"quantizer.alpha": 0.5}).plan(store).missing[1]
    config = trial_config(run, store=store.url, threads=3, provenance={"commit": "abc"})
    assert json.loads(json.dumps(config)) == config
    again = run_from_json(config["run"])
    assert again == run.config and again.recommender_key == config["key"]
    assert config["name"] == "toy bbqrec/no-text seed 0 recommender" and config["stages"] == "bbqrec.stages"


def test_a_node_without_the_folder_takes_the_copy_in_the_store(folder, store, tmp_path):
    fingerprint = load_dataset(folder).fingerprint
    assert dataset_of(str(folder), fingerprint, store.url).name == "toy"
    with pytest.raises(InputError, match=r"nowhere on .* is not the data set"):
        dataset_of("nowhere", fingerprint, store.url)
    store.publish("dataset", fingerprint, folder, attempt="driver")
    assert dataset_of("nowhere", fingerprint, store.url).fingerprint == fingerprint


def test_a_folder_that_holds_something_else_is_not_taken(folder, store, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(folder, other)
    with pytest.raises(InputError, match="is not the data set 0123456789ab"):
        dataset_of(str(other), "0123456789abcdef", store.url)


def test_the_data_set_is_loaded_once_per_process(folder, store):
    fingerprint = load_dataset(folder).fingerprint
    assert dataset_of(str(folder), fingerprint, store.url) is dataset_of(str(folder), fingerprint, store.url)


def test_a_trial_reports_every_epoch_but_nothing_of_the_test_split(study, store, monkeypatch):
    reports, threads = [], []
    monkeypatch.setattr(trainable.tune, "report", reports.append)
    monkeypatch.setattr(trainable.tune, "get_context", lambda: SimpleNamespace(get_trial_id=lambda: "trial7"))
    monkeypatch.setattr(trainable.devices.ray, "get_gpu_ids", list)
    monkeypatch.setattr(trainable.torch, "set_num_threads", threads.append)
    for run in study(methods=("bbqrec",)).plan(store).missing:
        trainable.train(trial_config(run, store=store.url, threads=3, stages="fake_stages"))
    assert [(report["stage"], report["epoch"], report["epochs"]) for report in reports] == [
        *(("quantizer", epoch, 2) for epoch in (1, 2)),
        *(("recommender", epoch, 3) for epoch in (1, 2, 3)),
    ]
    assert [report.get("valid/ndcg@10") for report in reports] == [None, None, 0.01, 0.02, 0.03]
    assert not any("test" in name for report in reports for name in report)
    assert threads == [3, 3]
    attempts = [path.name for kind in ("quantizer", "recommender") for path in Path(store.url, kind).glob("*/trial7-*")]
    assert len(set(attempts)) == 2


def test_only_the_first_worker_of_a_run_tells_of_it(study, store, monkeypatch, capsys, tmp_path):
    run = study(methods=("bbqrec",)).plan(store).missing[0]
    told: list[dict] = []
    monkeypatch.setattr(trainable.RunMetrics, "report", lambda self, report: told.append(report))
    for rank in (1, 0):
        config = trial_config(run, store=str(tmp_path / str(rank)), threads=1, stages="fake_stages", study="s")
        monkeypatch.setattr(trainable.distributed, "rank", lambda rank=rank: rank)
        found = list(trainable.reports(config, "trial", "cpu"))
        assert len(found) == 2 and told == (found if rank == 0 else [])
        lines = capsys.readouterr().out.splitlines()
        assert lines == [f"toy bbqrec seed 0 quantizer: epoch {epoch}/2, loss 1.0000" for epoch in (1, 2) if not rank]


@pytest.mark.parametrize(
    ("report", "line"),
    [
        ({"epoch": 1, "epochs": 2, "loss/total": 0.5, "seconds": 3.25}, "a: epoch 1/2, loss 0.5000, 3.2 s"),
        ({"note": "computing it again"}, "a: computing it again"),
        ({"hopeless": "it diverged"}, "a: it diverged"),
    ],
)
def test_a_report_is_a_line_of_the_log(report, line):
    assert trainable.in_words("a", report) == line


class Stages:
    """Stages that read what they need, as the real ones do, and note what they compute."""

    def __init__(self, folder: Path, error: InputError | None = None) -> None:
        self.folder, self.error, self.computed = folder, error, []

    def run_quantizer(self, run, dataset, store, *, attempt):
        if run.teacher is not None:
            store.read_bytes("recommender", run.teacher.recommender_key, "row.json")
        yield from self._made("quantizer", run.quantizer_key, store, attempt)

    def run_recommender(self, run, dataset, store, *, attempt, trial=False):
        if run.quantizer_key is not None and store.get("quantizer", run.quantizer_key) is None:
            raise InputError(f"quantizer {run.quantizer_key} is not in store", "run it")
        if self.error is not None:
            raise self.error
        yield from self._made("trial" if trial else "recommender", run.recommender_key, store, attempt)

    def _made(self, kind, key, store, attempt):
        self.computed.append((kind, key))
        yield object()
        (self.folder / "row.json").write_text(kind)
        store.publish(kind, key, self.folder, attempt)


@pytest.mark.parametrize("stage", ["recommender", "trial"])
def test_what_a_run_reads_is_computed_again_if_it_is_damaged(study, store, tmp_path, stage):
    """A taught run, so that there is something behind what it reads: of that, only what is damaged, too."""
    run = study(methods=("letter",)).plan(store).missing[-1].config
    quantizer, teacher = ("quantizer", run.quantizer_key), ("recommender", run.teacher.recommender_key)
    files = tmp_path / "files"
    files.mkdir()
    for damaged in ([quantizer], [quantizer, teacher], []):
        store = type(store)(tmp_path / f"store{len(damaged)}")
        stages = Stages(files)
        for kind, of in (("recommender", run.teacher), ("quantizer", run)):
            list(_reports(stages, kind, of, None, store, {"attempt": "first"}))
        for key in damaged:
            Path(store.url, *key, "first", "row.json").write_text("x")
        stages.computed.clear()
        found = list(_reports(stages, stage, run, None, store, {"attempt": "second"}))
        assert stages.computed == [*reversed(damaged), (stage, run.recommender_key)]
        said = [report for report in found if isinstance(report, str)]
        assert len(said) == len(damaged) and all("computing it again" in text for text in said)
        assert all(store.get(*key) is not None for key in (quantizer, teacher))


@pytest.mark.parametrize("error", [Diverged("loss is nan", "lower it"), InputError("no device", "use another")])
def test_other_errors_compute_nothing_again(study, store, tmp_path, error):
    run = study(methods=("bbqrec",)).plan(store).missing[-1].config
    stages = Stages(tmp_path, error)
    list(_reports(stages, "quantizer", run, None, store, {"attempt": "a"}))
    with pytest.raises(InputError, match=error.what):
        list(_reports(stages, "recommender", run, None, store, {"attempt": "a"}))
    assert stages.computed == [("quantizer", run.quantizer_key)]
