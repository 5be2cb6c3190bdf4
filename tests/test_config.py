"""Frozen configs: what they refuse, and keys that change with everything that can change a result, and nothing else."""

import dataclasses
from dataclasses import replace
from typing import Literal, get_args, get_origin, get_type_hints

import pytest

from bbqrec.baselines.letter import LetterQuantizerConfig, LetterRecommenderConfig
from bbqrec.baselines.sasrec import SASRecConfig
from bbqrec.config import QuantizerConfig, RecommenderConfig, digest, to_json
from bbqrec.run import RunConfig

RUN = RunConfig(dataset="toys", fingerprint="f" * 8, seed=3)
TEACHER = replace(RUN, quantizer=None, recommender=SASRecConfig())
TAUGHT = replace(RUN, quantizer=LetterQuantizerConfig(), recommender=LetterRecommenderConfig(), teacher=TEACHER)


def another(config, field: dataclasses.Field):
    """A valid value of the field that differs from the config's."""
    hint, value = get_type_hints(type(config))[field.name], getattr(config, field.name)
    if get_origin(hint) is Literal:
        return next(v for v in get_args(hint) if v != value)
    if hint is bool:
        return not value
    if field.name == "sequence_heads":
        return value * 2
    if field.name == "width":
        return value * 3
    if hint in (int, float):
        return value + 1 if hint is int else value / 2 or 0.25
    assert field.name == "components"
    return value[:-1]


@pytest.mark.parametrize("run", [RUN, TAUGHT], ids=["bbqrec", "letter"])
def test_every_field_changes_its_stage_s_key_and_only_those_behind_it(run):
    keys = {run.quantizer_key, run.recommender_key}
    for stage, config in (("quantizer", run.quantizer), ("recommender", run.recommender)):
        for field in dataclasses.fields(config):
            own = replace(config, objective="children") if field.name == "node_vectors" else config  # it needs that
            changed = replace(run, **{stage: replace(own, **{field.name: another(config, field)})})
            assert (changed.quantizer_key != run.quantizer_key) == (stage == "quantizer"), field.name
            assert changed.recommender_key not in keys, field.name
            keys |= {changed.quantizer_key, changed.recommender_key}


def test_a_teacher_changes_the_keys_of_what_it_teaches(monkeypatch):
    keys = {TAUGHT.quantizer_key, replace(TAUGHT, teacher=None).quantizer_key}
    for changes in ({"layers": 3}, {"dropout": 0.1}, {"epochs": 7}, {"loss": "bce"}):
        taught = replace(TAUGHT, teacher=replace(TEACHER, recommender=SASRecConfig(**changes)))
        assert taught.quantizer_key not in keys and taught.recommender_key != TAUGHT.recommender_key, changes
        keys.add(taught.quantizer_key)
    monkeypatch.setattr(SASRecConfig, "version", 99)
    assert TAUGHT.quantizer_key not in keys


def test_a_method_s_own_kind_of_stage_has_keys_of_its_own():
    same = LetterRecommenderConfig(similarity=True, temperature=1.0)
    assert replace(RUN, recommender=same).recommender_key != RUN.recommender_key


def test_seed_and_data_change_both_keys_and_the_name_neither():
    for changed in (replace(RUN, seed=4), replace(RUN, fingerprint="g" * 8)):
        assert changed.quantizer_key != RUN.quantizer_key and changed.recommender_key != RUN.recommender_key
    renamed = replace(RUN, dataset="the same toys")
    assert (renamed.quantizer_key, renamed.recommender_key) == (RUN.quantizer_key, RUN.recommender_key)


def test_a_new_version_of_a_stage_s_code_changes_its_key(monkeypatch):
    before = RUN.quantizer_key, RUN.recommender_key
    monkeypatch.setattr(RecommenderConfig, "version", 99)
    middle = RUN.quantizer_key, RUN.recommender_key
    assert middle[0] == before[0] and middle[1] != before[1]
    monkeypatch.setattr(QuantizerConfig, "version", 99)
    assert RUN.quantizer_key != middle[0] and RUN.recommender_key != middle[1]


def test_digest_does_not_depend_on_the_order_of_keys():
    assert digest({"a": 1, "b": [2]}) == digest({"b": [2], "a": 1}) != digest({"a": 1, "b": [3]})


def test_configs_are_frozen_and_json():
    with pytest.raises(dataclasses.FrozenInstanceError):
        RUN.quantizer.levels = 4
    value = to_json(RUN)
    assert value["quantizer"]["components"] == ["id", "text", "image"] and value["seed"] == 3
    assert hash(RUN) == hash(replace(RUN))


@pytest.mark.parametrize(
    ("cls", "field", "value"),
    [
        (QuantizerConfig, "components", ()),
        (QuantizerConfig, "components", ("id", "sound")),
        (QuantizerConfig, "components", ("text", "text")),
        (QuantizerConfig, "sequence_heads", 5),
        *((QuantizerConfig, name, 0) for name in ("levels", "codes", "width", "hidden", "epochs", "batch_users")),
        *((RecommenderConfig, name, 0) for name in ("buckets", "d_model", "heads", "encoder_layers", "epochs", "beam")),
        (RecommenderConfig, "dropout", 1.0),
        (RecommenderConfig, "dropout", -0.1),
        (QuantizerConfig, "sequence_heads", 0),
        (QuantizerConfig, "club_hidden", 0),
        (QuantizerConfig, "tau", 0.0),
        (QuantizerConfig, "dropout", 1.5),
        (QuantizerConfig, "learning_rate", -1.0),
        (RecommenderConfig, "learning_rate", 0.0),
        (RecommenderConfig, "patience", 0),  # would end before the first epoch, with no weights to judge
        (RecommenderConfig, "relative_buckets", 1),
        (RecommenderConfig, "label_smoothing", 3.0),
        (RecommenderConfig, "validation_users", -3),
    ],
)
def test_impossible_values_are_refused_by_name(cls, field, value):
    with pytest.raises(ValueError, match=field):
        cls(**{field: value})


def test_width_of_v_counts_the_components():
    config = QuantizerConfig(components=("text", "id"), width=10)
    assert config.vector_width == 20 and config.modalities == ("text",)
