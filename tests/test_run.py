"""Keys of runs that have no quantizer, or a teacher; and a run as JSON and back."""

from dataclasses import replace

import pytest

from bbqrec.baselines.sasrec import SASRecConfig
from bbqrec.config import QuantizerConfig, RecommenderConfig
from bbqrec.errors import InputError
from bbqrec.methods import METHODS, has_field, run_config, run_from_json
from bbqrec.run import RunConfig

FULL = RunConfig(dataset="toys", fingerprint="f" * 8, seed=3)
ITEMS = replace(FULL, quantizer=None, recommender=SASRecConfig())
TAUGHT = replace(FULL, teacher=ITEMS)


def test_a_run_without_a_quantizer_is_keyed_by_its_data():
    assert ITEMS.quantizer_key is None
    keys = {ITEMS.recommender_key}
    for changed in (
        replace(ITEMS, seed=4),
        replace(ITEMS, fingerprint="g" * 8),
        replace(ITEMS, recommender=SASRecConfig(layers=3)),
        replace(ITEMS, recommender=SASRecConfig(features=("text",))),
    ):
        keys.add(changed.recommender_key)
    assert len(keys) == 5 and FULL.recommender_key not in keys
    assert replace(ITEMS, dataset="the same toys").recommender_key == ITEMS.recommender_key


def test_two_models_with_equal_fields_have_different_keys(monkeypatch):
    before = ITEMS.recommender_key
    monkeypatch.setattr(SASRecConfig, "kind", "recommender/other")
    assert ITEMS.recommender_key != before
    monkeypatch.undo()
    monkeypatch.setattr(SASRecConfig, "version", SASRecConfig.version + 1)
    assert ITEMS.recommender_key != before


def test_a_teacher_changes_the_keys_of_both_stages_and_so_does_what_changes_it():
    other = replace(TAUGHT, teacher=replace(ITEMS, recommender=SASRecConfig(layers=3)))
    assert len({run.quantizer_key for run in (FULL, TAUGHT, other)}) == 3
    assert len({run.recommender_key for run in (FULL, TAUGHT, other)}) == 3


def test_keys_of_stored_runs_stay_what_they_are():
    """Runs are found by them: a change here makes every store worthless."""
    assert RecommenderConfig.version == 6 and QuantizerConfig.version == 2
    stored = replace(FULL, quantizer=replace(FULL.quantizer, id_std=0.02))  # the default of then
    assert (stored.quantizer_key, stored.recommender_key) == ("69eb20c206aa2690", "3d7c39d1306dba5c")
    younger = replace(FULL.recommender, objective="children", node_vectors="ids")
    older = replace(FULL.recommender, objective="children")
    keys = {replace(FULL, recommender=config).recommender_key for config in (FULL.recommender, older, younger)}
    assert len(keys) == 3


@pytest.mark.parametrize("run", [FULL, ITEMS, TAUGHT], ids=["full", "items", "taught"])
def test_described_and_back(run):
    assert run_from_json(run.described()) == run


def test_what_was_described_before_there_were_kinds_is_bbqrec_s():
    older = {name: value for name, value in FULL.described().items() if name not in ("kinds", "teacher")}
    assert run_from_json(older) == FULL


def test_an_unknown_kind_is_bad_input():
    described = ITEMS.described()
    described["kinds"]["recommender"] = "recommender/sasrek"
    with pytest.raises(InputError, match="sasrek"):
        run_from_json(described)


def test_methods_know_their_fields():
    assert has_field("bbqrec", "quantizer.levels") and not has_field("sasrec", "quantizer.levels")
    assert has_field("sasrec", "recommender.epochs") and not has_field("sasrec", "recommender.beam")
    assert not any(
        has_field("bbqrec", path) for path in ("seed", "quantizer", "recommender.kind", "recommender.colour")
    )


def test_features_that_the_data_set_lacks_are_left_out(tiny_dataset):
    bare = replace(tiny_dataset, features={"text": tiny_dataset.features["text"]})
    assert METHODS["sasrec-f"].recommender.features == ("text", "image")
    assert run_config("sasrec-f", bare, 0, "tiny").recommender.features == ("text",)
    with pytest.raises(InputError, match="sasrec-f needs text or image features"):
        run_config("sasrec-f", replace(tiny_dataset, features={}), 0, "tiny")
    with pytest.raises(InputError, match="method sasrec has no quantizer"):
        run_config("sasrec", tiny_dataset, 0, "tiny", {"quantizer.levels": 2})
