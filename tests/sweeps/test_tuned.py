"""Tuned configs in studies: what is written changes the runs that it is for, and no others."""

import json
from pathlib import Path

import pytest

from bbqrec.data import load_dataset
from bbqrec.errors import InputError
from bbqrec.methods import run_config
from sweeps.tuned import read_tuned, tuned_for, write_tuned

VALUES = {
    "sasrec": {"recommender.learning_rate": 0.003, "recommender.d_model": 64},
    "bbqrec": {"recommender.dropout": 0.25, "quantizer.gamma": 0.5},
}


@pytest.fixture
def write(folder, tmp_path):
    """Writes the file of a method; options replace what it says."""

    def put(method: str, **options) -> Path:
        found = {
            "method": method,
            "dataset": "toy",
            "fingerprint": load_dataset(folder).fingerprint,
            "profile": "tiny",
            "overrides": VALUES.get(method, {}),
        }
        return write_tuned(tmp_path / "tuned", {**found, **options})

    return put


@pytest.fixture
def cells(study, store, tmp_path):
    """The cells of a study of these methods and TIGER by method, with the tuned configs there are.

    Stage 1 has overrides, for which models over items have no field: their notes say so first.
    """

    def plan(*methods: str, **options):
        made = study(methods=(*methods, "tiger"), tuned=tmp_path / "tuned", **options).plan(store)
        return {cell.method: cell for cell in made.cells}

    return plan


def test_a_tuned_config_goes_through_the_file_into_the_plan(write, cells, study, store, tmp_path):
    before = cells("sasrec")
    path = write("sasrec")
    assert path == tmp_path / "tuned" / "toy" / "sasrec.json"
    assert read_tuned(tmp_path / "tuned", "toy", "sasrec")["overrides"] == VALUES["sasrec"]
    after = cells("sasrec")
    assert after["sasrec"].run_key != before["sasrec"].run_key and after["tiger"] == before["tiger"]
    assert after["sasrec"].tuned == "tuned config" and after["tiger"].tuned is None
    assert after["sasrec"].note == f"{before['sasrec'].note}; tuned config"
    plan = study(methods=("sasrec", "tiger"), tuned=tmp_path / "tuned").plan(store)
    config = plan.runs[after["sasrec"].run_key].config.recommender
    assert (config.learning_rate, config.d_model, config.epochs) == (0.003, 64, 3)
    assert "tuned config: toy sasrec" in plan.scope().splitlines()
    assert plan.key != study(methods=("sasrec", "tiger")).plan(store).key
    assert study(methods=("sasrec", "tiger")).plan(store).cells == tuple(before.values())


def test_the_user_s_overrides_win_over_tuned_values_and_these_over_the_profile(write, cells, study, store, folder):
    write("sasrec")
    own = {"recommender.learning_rate": "0.004"}
    expected = {"recommender.epochs": 3, "recommender.d_model": 64, "recommender.learning_rate": 0.004}
    run = run_config("sasrec", load_dataset(folder), 0, "tiny", expected)
    assert cells("sasrec", overrides=own)["sasrec"].run_key == run.recommender_key


def test_variants_take_the_full_model_s_config_and_go_on_sharing_its_quantizer(write, cells):
    before = cells("bbqrec", "bbqrec/s", "bbqrec/no-u")
    write("bbqrec")
    after = cells("bbqrec", "bbqrec/s", "bbqrec/no-u")
    assert all(after[method].run_key != before[method].run_key for method in ("bbqrec", "bbqrec/s", "bbqrec/no-u"))
    assert after["bbqrec/s"].quantizer_key == after["bbqrec"].quantizer_key != before["bbqrec"].quantizer_key
    assert after["bbqrec/s"].note == "tuned config (bbqrec's)" and after["bbqrec"].note == "tuned config"
    assert after["tiger"] == before["tiger"]


@pytest.mark.parametrize(
    ("foreign", "said"),
    [
        ({"fingerprint": "0" * 64}, "tuned config ignored: it is of other data named toy"),
        ({"profile": "small"}, "tuned config ignored: it is of profile small"),
    ],
)
def test_what_was_tuned_on_other_data_or_in_another_profile_is_ignored_with_a_note(write, cells, foreign, said):
    before = cells("sasrec")["sasrec"]
    write("sasrec", **foreign)
    after = cells("sasrec")["sasrec"]
    assert after.run_key == before.run_key and after.tuned == said and after.note == f"{before.note}; {said}"


def test_another_data_set_has_files_of_its_own(write, folder, tmp_path):
    write("sasrec", dataset="other")
    found = tuned_for(tmp_path / "tuned", "sasrec", load_dataset(folder), "tiny")
    assert found.overrides == {} and found.note is None


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"overrides": {"recommender.droput": 0.1}}, r"sasrec has no field recommender.droput"),
        ({"overrides": {"quantizer.gamma": 0.1}}, r"sasrec has no field quantizer.gamma"),
        ({"overrides": {"recommender.dropout": "high"}}, r"dropout='high'"),
        ({"overrides": []}, r"has no overrides"),
        ({"profile": None}, r"has no profile"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused(write, cells, options, said):
    write("sasrec", **options)
    with pytest.raises(InputError, match=said):
        cells("sasrec")


@pytest.mark.parametrize("text", ["{", "[]", "null", '"x"'])
def test_a_damaged_file_is_refused_by_name(write, cells, text):
    path = write("sasrec")
    path.write_text(text)
    with pytest.raises(InputError, match=r"toy/sasrec\.json"):
        cells("sasrec")


def test_a_file_is_json_with_a_line_per_value(write):
    text = write("sasrec").read_text()
    assert json.loads(text)["profile"] == "tiny" and '\n  "recommender.d_model": 64\n' in text
