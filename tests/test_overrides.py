"""The one override path: nesting, parsing of strings, and errors that name class, field and value."""

from dataclasses import replace

import pytest

from bbqrec.config import QuantizerConfig, RecommenderConfig, to_json
from bbqrec.errors import InputError
from bbqrec.methods import run_from_json
from bbqrec.overrides import from_json, with_overrides
from bbqrec.run import RunConfig

RUN = RunConfig(dataset="toys", fingerprint="f" * 8, seed=3)


def test_dotted_overrides_replace_and_leave_the_rest():
    found = with_overrides(
        RUN, {"quantizer.levels": 4, "seed": 9, "recommender.history": "packed", "quantizer.alpha": 2}
    )
    expected = replace(
        RUN,
        seed=9,
        quantizer=replace(RUN.quantizer, levels=4, alpha=2.0),
        recommender=replace(RUN.recommender, history="packed"),
    )
    assert found == expected and isinstance(found.quantizer.alpha, float)
    assert RUN.quantizer.levels == 3


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("quantizer.levels", "5", 5),
        ("quantizer.alpha", "1e-2", 0.01),
        ("quantizer.alpha", "3", 3.0),
        ("quantizer.shared", "false", False),
        ("quantizer.shared", "True", True),
        ("quantizer.components", "id,text", ("id", "text")),
        ("quantizer.components", ["image"], ("image",)),
        ("recommender.layout", "flat", "flat"),
        ("dataset", "beauty", "beauty"),
    ],
)
def test_strings_are_parsed_to_the_field_s_type(name, text, value):
    stage, _, field = name.rpartition(".")
    found = with_overrides(RUN, {name: text})
    got = getattr(getattr(found, stage) if stage else found, field)
    assert got == value and type(got) is type(value)


@pytest.mark.parametrize(
    ("name", "value", "parts"),
    [
        ("quantizer.levles", 4, ("QuantizerConfig", "levles", "4")),
        ("quantiser.levels", 4, ("RunConfig", "quantiser", "4")),
        ("quantizer.levels", "four", ("QuantizerConfig", "levels", "four")),
        ("quantizer.levels", 2.5, ("QuantizerConfig", "levels", "2.5")),
        ("quantizer.levels", True, ("QuantizerConfig", "levels", "True")),
        ("quantizer.levels", None, ("QuantizerConfig", "levels", "None")),
        ("quantizer.levels", 0, ("QuantizerConfig", "levels", "0")),
        ("quantizer.alpha", True, ("QuantizerConfig", "alpha", "True")),
        ("quantizer.alpha", "NaN", ("QuantizerConfig", "alpha", "nan")),
        ("quantizer.alpha", "Infinity", ("QuantizerConfig", "alpha", "inf")),
        ("quantizer.shared", "maybe", ("QuantizerConfig", "shared", "maybe")),
        ("quantizer.shared", 1, ("QuantizerConfig", "shared", "1")),
        ("quantizer.components", "id,sound", ("QuantizerConfig", "components", "sound")),
        ("quantizer.components", 3, ("QuantizerConfig", "components", "3")),
        ("recommender.layout", "tall", ("RecommenderConfig", "layout", "tall")),
        ("recommender", "tall", ("RunConfig", "recommender", "tall")),
        ("seed.low", 1, ("RunConfig", "seed", "low")),
    ],
)
def test_errors_name_class_field_and_value(name, value, parts):
    with pytest.raises(InputError) as caught:
        with_overrides(RUN, {name: value})
    assert all(part in str(caught.value) for part in parts), str(caught.value)
    assert "\n" not in str(caught.value) and caught.value.remedy


def test_json_and_back():
    run = with_overrides(RUN, {"quantizer.components": "text", "recommender.similarity": "false", "quantizer.tau": 0.3})
    assert run_from_json(run.described()) == run
    for cls in (QuantizerConfig, RecommenderConfig):
        assert from_json(cls, to_json(cls())) == cls()
    with pytest.raises(InputError, match="no field 'colour'"):
        from_json(QuantizerConfig, {"colour": 1})


def test_json_of_a_run_without_a_required_field_is_bad_input():
    value = RUN.described()
    del value["fingerprint"]
    with pytest.raises(InputError, match="fingerprint"):
        run_from_json(value)
