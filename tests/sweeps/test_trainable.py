"""One trial: its configuration as JSON, and where it finds the data set."""

import json
import shutil

import pytest

from bbqrec.config import RunConfig
from bbqrec.data import load_dataset
from bbqrec.errors import InputError
from bbqrec.overrides import from_json
from sweeps.trainable import _dataset, trial_config


def test_a_trial_is_plain_json_and_gives_the_run_back(study, store):
    run = study(methods=("bbqrec/no-text",), overrides={"quantizer.alpha": 0.5}).plan(store).missing[1]
    config = trial_config(run, store=store.url, threads=3, provenance={"commit": "abc"})
    assert json.loads(json.dumps(config)) == config
    again = from_json(RunConfig, config["run"])
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
