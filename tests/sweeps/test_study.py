"""The plan: equal keys once, what is done, what is missing, and what is refused."""

import io
import shutil
from pathlib import Path

import fake_stages
import pytest
from rich.console import Console
from small_data import SMALL

from bbqrec.data import load_dataset
from bbqrec.datasets.synthetic import SyntheticConfig, prepare_synthetic
from bbqrec.errors import InputError
from bbqrec.methods import METHODS, variant
from sweeps.ablations import VARIANTS


def compute(store, run):
    """Publishes a run with the fake stages, here and now."""
    stage = getattr(fake_stages, f"run_{run.stage}")
    list(stage(run.config, load_dataset(run.folder, verify=False), store, attempt="here"))


def test_s_and_e_share_the_quantizer_of_the_full_model(study, store):
    plan = study().plan(store)
    cells = {cell.method: cell for cell in plan.cells}
    assert cells["bbqrec/s"].quantizer_key == cells["bbqrec/e"].quantizer_key == cells["bbqrec"].quantizer_key
    assert len({cell.run_key for cell in plan.cells}) == 9
    assert plan.summary() == {
        "cells": 9,
        "quantizer_runs": 7,
        "recommender_runs": 9,
        "shared": 2,
        "already_done": 0,
    }
    assert [run.stage for run in plan.missing] == ["quantizer"] * 7 + ["recommender"] * 9
    assert cells["bbqrec/no-mim"].label == "w/o MIM" and cells["bbqrec/no-mim"].note is None


def test_equal_keys_run_once_and_a_method_given_twice_is_one_cell(study, store):
    once = study(methods=("bbqrec", "tiger"), seeds=2).plan(store)
    twice = study(methods=("bbqrec", "tiger", "bbqrec"), seeds=2).plan(store)
    assert once.cells == twice.cells and len(once.cells) == 4
    assert len(once.runs) == 8 and {run.config.seed for run in once.runs.values()} == {0, 1}
    needs = {run.key: run.needs for run in once.runs.values()}
    assert all(needs[cell.run_key] == cell.quantizer_key and needs[cell.quantizer_key] is None for cell in once.cells)


def test_a_data_set_without_images_needs_fewer_runs_and_says_so(study, store, tmp_path, folder):
    bare = tmp_path / "bare"
    prepare_synthetic(SyntheticConfig(users=53, seed=3, without_image=1.0, **SMALL), bare, "bare")
    plan = study(datasets=(bare,)).plan(store)
    cells = {cell.method: cell for cell in plan.cells}
    assert cells["bbqrec/no-image"].run_key == cells["bbqrec"].run_key
    assert cells["bbqrec"].note == "without image: bare has none"
    assert cells["bbqrec/no-image"].note == "the same run as bbqrec"
    assert plan.summary()["recommender_runs"] == 8


def test_a_model_over_items_is_a_run_without_a_quantizer(study, store):
    plan = study(methods=("bbqrec", "sasrec")).plan(store)
    cells = {cell.method: cell for cell in plan.cells}
    assert cells["sasrec"].quantizer_key is None and plan.runs[cells["sasrec"].run_key].needs is None
    assert plan.summary() == {
        "cells": 2,
        "quantizer_runs": 1,
        "recommender_runs": 2,
        "shared": 0,
        "already_done": 0,
    }
    assert cells["sasrec"].note == "has no field quantizer.epochs" and cells["bbqrec"].note is None
    assert all(run.config.recommender.epochs == 3 for run in plan.runs.values())


def test_an_override_that_no_method_has_a_field_for_is_refused(study, store):
    with pytest.raises(InputError, match="has no field 'beem'"):
        study(methods=("bbqrec", "sasrec"), overrides={"recommender.beem": 5}).plan(store)
    wide = study(methods=("bbqrec", "sasrec"), overrides={"recommender.beam": 5}).plan(store)
    assert {cell.method: cell.note for cell in wide.cells} == {
        "bbqrec": None,
        "sasrec": "has no field quantizer.epochs; has no field recommender.beam",
    }


def test_a_teacher_is_the_run_of_its_method_and_is_shared(study, store):
    """Also if the study overrides a field that the teacher alone has."""
    alone = study(methods=("letter",)).plan(store)
    (letter,) = alone.cells
    quantizer = alone.runs[letter.quantizer_key]
    assert alone.runs[letter.run_key].needs == letter.quantizer_key
    teacher = alone.runs[quantizer.needs]
    assert (teacher.stage, teacher.needs, teacher.name) == ("recommender", None, "toy sasrec seed 0 recommender")
    assert alone.behind(letter.run_key) == [quantizer.key, teacher.key]
    assert alone.summary() == {
        "cells": 1,
        "quantizer_runs": 1,
        "recommender_runs": 2,
        "shared": 0,
        "already_done": 0,
    }
    for overrides in ({}, {"recommender.layers": 1}, {"quantizer.passes": 2, "recommender.d_model": 16}):
        both = study(methods=("sasrec", "letter", "tiger"), overrides=overrides, seeds=2).plan(store)
        assert both.summary() == {
            "cells": 6,
            "quantizer_runs": 4,
            "recommender_runs": 6,
            "shared": 2,
            "already_done": 0,
        }
        for seed in (0, 1):
            cells = {cell.method: cell for cell in both.cells if cell.seed == seed}
            assert both.runs[cells["letter"].quantizer_key].needs == cells["sasrec"].run_key
            assert cells["letter"].note is None and cells["sasrec"].quantizer_key is None


def test_a_teacher_is_computed_for_a_quantizer_that_is_missing_and_for_no_other(study, store):
    plan = study(methods=("letter",)).plan(store)
    (cell,) = plan.cells
    chain = [*reversed(plan.behind(cell.run_key)), cell.run_key]
    assert {run.key for run in plan.missing} == set(chain)
    for key in chain[:2]:
        compute(store, plan.runs[key])
    shutil.rmtree(Path(store.url) / "recommender")
    assert [run.key for run in study(methods=("letter",)).plan(store).missing] == [cell.run_key]


def test_what_the_store_holds_is_not_planned_again(study, store):
    first = study().plan(store)
    full = first.cells[0]
    compute(store, first.runs[full.quantizer_key])
    compute(store, first.runs[full.run_key])
    plan = study().plan(store)
    assert plan.done == {full.quantizer_key, full.run_key}
    assert plan.scores == {full.run_key: 0.03}
    assert plan.summary()["already_done"] == 2 and len(plan.missing) == 14


def test_a_quantizer_that_no_missing_recommender_reads_is_not_computed(study, store):
    only = study(methods=("bbqrec/no-u",)).plan(store)
    for run in only.missing:
        compute(store, run)
    shutil.rmtree(Path(store.url) / "quantizer")
    assert study(methods=("bbqrec/no-u",)).plan(store).missing == ()


def test_a_damaged_row_is_planned_again(study, store, caplog):
    plan = study(methods=("bbqrec",)).plan(store)
    for run in plan.missing:
        compute(store, run)
    key = plan.cells[0].run_key
    (Path(store.url) / "recommender" / key / "here" / "row.json").write_text("{}")
    assert [run.key for run in study(methods=("bbqrec",)).plan(store).missing] == [key]
    assert "damaged" in caplog.text


def test_a_study_s_key_says_what_was_asked_for(study, store, tmp_path):
    one, two, other = ("bbqrec", "tiger"), ("tiger", "bbqrec"), tmp_path / "other"
    prepare_synthetic(SyntheticConfig(users=54, seed=4, **SMALL), other, "toy")
    key = study(methods=one).plan(store).key
    assert key.startswith("ablations-") and key == study(methods=two).plan(store).key
    assert key == study(methods=one, overrides={"quantizer.epochs": "2"}).plan(store).key
    changed = [
        {"methods": one[:1]},
        {"seeds": 2},
        {"datasets": (other,)},
        {"profile": "small"},
        {"overrides": {"quantizer.alpha": 0.5}},
    ]
    keys = {study(**{"methods": one, **options}).plan(store).key for options in changed}
    assert len(keys) == len(changed) and key not in keys


def test_the_plan_is_printed_as_a_table(study, store):
    text = io.StringIO()
    Console(file=text, width=100).print(study().plan(store).table())
    rows = [line.replace("│", " ").split() for line in text.getvalue().splitlines()]
    assert ["quantizer", "7", "2", "0", "7"] in rows and ["both", "16", "2", "0", "16"] in rows


def test_the_plan_says_what_it_covers(study, store):
    options = {"methods": ("bbqrec", "tiger"), "seeds": 2, "overrides": {"quantizer.epochs": 3}}
    assert study(**options).plan(store).scope().splitlines() == [
        "data sets: toy",
        "methods: bbqrec, tiger",
        "seeds: 0, 1",
        "profile: tiny",
        "set: quantizer.epochs=3, recommender.epochs=3",
    ]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"methods": ("bbqrec/no-mmi",)}, "unknown variant 'bbqrec/no-mmi': did you mean bbqrec/no-mim?"),
        ({"profile": "smal"}, "unknown profile 'smal': did you mean small?"),
        ({"seeds": 0}, "--seeds 0"),
        ({"methods": ()}, "no cells"),
        ({"overrides": {"quantizer.level": 4}}, "no field 'level' (override level=4): did you mean levels?"),
        ({"overrides": {"recommender.epochs": "many"}}, "epochs='many'"),
        ({"datasets": (Path("nowhere"),)}, "nowhere"),
    ],
)
def test_bad_studies_are_refused_by_name(study, store, options, said):
    with pytest.raises(InputError) as caught:
        study(**options).plan(store)
    assert said in str(caught.value)


def test_two_variants_of_one_label_are_refused(study, store, monkeypatch):
    """Tables, costs and curves would take one for the other."""
    for of in ("bbqrec", "tiger"):
        monkeypatch.setitem(METHODS, f"{of}/long", variant(of, "history of 40", {"recommender.max_history": 40}))
    assert len(study(methods=("bbqrec/long", "bbqrec/long")).plan(store).cells) == 1
    with pytest.raises(InputError, match="bbqrec/long and tiger/long are both called 'history of 40'"):
        study(methods=("bbqrec/long", "tiger/long"))


def test_two_data_sets_of_one_name_are_refused_and_one_given_twice_is_one(study, store, folder, tmp_path):
    copy, other = tmp_path / "copy", tmp_path / "other"
    shutil.copytree(folder, copy)
    assert len(study(datasets=(folder, copy, folder)).plan(store).cells) == len(VARIANTS)
    prepare_synthetic(SyntheticConfig(users=54, seed=4, **SMALL), other, "toy")
    with pytest.raises(InputError, match="different data sets named 'toy'"):
        study(datasets=(folder, other)).plan(store)


def test_a_data_set_without_a_training_target_is_refused_before_ray_starts(study, store, tmp_path):
    short = tmp_path / "short"
    prepare_synthetic(
        SyntheticConfig(users=53, **{**SMALL, "min_length": 3, "mean_length": 3, "max_length": 3}), short, "s"
    )
    with pytest.raises(InputError, match="data set s has nothing to learn from"):
        study(datasets=(short,)).plan(store)


def test_folders_are_absolute_since_workers_change_their_directory(study, store, folder, monkeypatch):
    monkeypatch.chdir(folder.parent)
    plan = study(datasets=(Path(folder.name),)).plan(store)
    assert {run.folder for run in plan.runs.values()} == set(plan.folders.values()) == {str(folder)}
