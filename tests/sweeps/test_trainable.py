"""One trial: its configuration as JSON, and where it finds the data set."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from bbqrec.data import load_dataset
from bbqrec.errors import InputError
from bbqrec.methods import run_from_json
from sweeps import trainable
from sweeps.trainable import _dataset, trial_config


def test_a_trial_is_plain_json_and_gives_the_run_back(study, store):
    run = study(methods=("bbqrec/no-text",), overrides={"quantizer.alpha": 0.5}).plan(store).missing[1]
    config = trial_config(run, store=store.url, threads=3, provenance={"commit": "abc"})
    assert json.loads(json.dumps(config)) == config
    again = run_from_json(config["run"])
    assert again == run.config and again.recommender_key == config["key"]
    assert config["name"] == "toy bbqrec/no-text seed 0 recommender" and config["stages"] == "bbqrec.stages"


def test_a_node_without_the_folder_takes_the_copy_in_the_store(folder, store, tmp_path):
    fingerprint = load_dataset(folder).fingerprint
    assert _dataset(str(folder), fingerprint, store.url).name == "toy"
    with pytest.raises(InputError, match=r"nowhere on .* is not the data set"):
        _dataset("nowhere", fingerprint, store.url)
    store.publish("dataset", fingerprint, folder, attempt="driver")
    assert _dataset("nowhere", fingerprint, store.url).fingerprint == fingerprint


def test_a_folder_that_holds_something_else_is_not_taken(folder, store, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(folder, other)
    with pytest.raises(InputError, match="is not the data set 0123456789ab"):
        _dataset(str(other), "0123456789abcdef", store.url)


def test_the_data_set_is_loaded_once_per_process(folder, store):
    fingerprint = load_dataset(folder).fingerprint
    assert _dataset(str(folder), fingerprint, store.url) is _dataset(str(folder), fingerprint, store.url)


def test_a_trial_reports_every_epoch_but_nothing_of_the_test_split(study, store, monkeypatch):
    reports, threads = [], []
    monkeypatch.setattr(trainable.tune, "report", reports.append)
    monkeypatch.setattr(trainable.tune, "get_context", lambda: SimpleNamespace(get_trial_id=lambda: "trial7"))
    monkeypatch.setattr(trainable.ray, "get_gpu_ids", list)
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
