"""The search spaces: every method of Table 2 has one, of fields that exist and values that make a run."""

import itertools

import pytest

from bbqrec.data import load_dataset
from bbqrec.methods import METHODS, has_field, run_config
from bbqrec.profiles import PROFILES
from sweeps.search_spaces import SPACES, TUNABLE, Choices, LogUniform, space_for, space_of


@pytest.fixture(scope="module")
def dataset(folder):
    return load_dataset(folder)


def ends(domain):
    """The outermost values of a domain."""
    return (domain.values[0], domain.values[-1]) if isinstance(domain, Choices) else (domain.low, domain.high)


def test_the_methods_of_table_2_are_tuned_and_no_variant():
    assert {"bbqrec", "tiger", "sasrec", "sasrec-f"} <= set(TUNABLE)
    assert all("Table 2" in METHODS[method].table and "/" not in method for method in TUNABLE)
    assert len(TUNABLE) == sum("Table 2" in method.table for method in METHODS.values())
    assert set(SPACES) - {"items", "generators"} <= set(TUNABLE)


@pytest.mark.parametrize("method", TUNABLE)
def test_every_method_has_a_space_of_fields_that_exist(method):
    space = space_for(method)
    assert 3 <= len(space) <= 6 and "recommender.learning_rate" in space
    assert [path for path in space if not has_field(method, path)] == []
    for domain in space.values():
        low, high = ends(domain)
        assert low < high and (isinstance(domain, LogUniform) or domain.values == tuple(sorted(set(domain.values))))


@pytest.mark.parametrize("method", TUNABLE)
@pytest.mark.parametrize("profile", PROFILES)
def test_every_corner_is_a_run_of_its_own(method, profile, dataset):
    """A field that does not reach the run would be tuned in vain."""
    space = space_of(method, run_config(method, dataset, 0, profile), {})
    corners = [dict(zip(space, values, strict=True)) for values in itertools.product(*map(ends, space.values()))]
    keys = {run_config(method, dataset, 0, profile, None, {method: corner}).recommender_key for corner in corners}
    assert len(keys) == 2 ** len(space)


def test_every_choice_of_a_field_is_a_run(dataset):
    for method in TUNABLE:
        for path, domain in space_for(method).items():
            for value in domain.values if isinstance(domain, Choices) else ():
                run_config(method, dataset, 0, "paper", None, {method: {path: value}})


def test_models_over_items_share_a_space_and_those_with_a_quantizer_tune_it():
    for method in TUNABLE:
        if METHODS[method].quantizer is None:
            items = SPACES["items"].items()
            assert space_for(method) == {path: domain for path, domain in items if has_field(method, path)}
            assert ("recommender.layers" in space_for(method)) == (method != "missrec")  # it calls them encoder_layers
        else:
            assert any(path.startswith("quantizer.") for path in space_for(method))
    assert "quantizer.gamma" in space_for("bbqrec") and "quantizer.gamma" not in space_for("tiger")


def test_the_default_is_in_the_space_and_what_is_fixed_is_not(dataset):
    run = run_config("sasrec", dataset, 0, "tiny", {"recommender.learning_rate": 0.1, "recommender.d_model": 48})
    space = space_of("sasrec", run, {"recommender.d_model": 48})
    assert "recommender.d_model" not in space
    assert space["recommender.learning_rate"] == LogUniform(3e-4, 0.1)
    assert space["recommender.batch_size"] == Choices((32, 64, 128, 256, 512))  # 32 is the profile's
    assert SPACES["items"]["recommender.batch_size"] == Choices((64, 128, 256, 512))
