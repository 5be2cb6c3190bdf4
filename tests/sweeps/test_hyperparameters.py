"""Grids: what they plan, what they share with other studies, what they refuse."""

import json
from pathlib import Path

import pytest

from bbqrec.config import QuantizerConfig, RecommenderConfig
from bbqrec.errors import InputError
from bbqrec.profiles import GENERATIVE
from sweeps.command import main
from sweeps.grids import GRIDS, crossed, one_at_a_time, parse_grid
from sweeps.hyperparameters import Hyperparameters
from sweeps.outlook import Past, estimate, outlook, past_runs, shared_with

BASE = {"quantizer.levels": "3", "quantizer.codes": "32", "quantizer.width": "32", "recommender.buckets": "100"}


def test_the_paper_s_grids_are_those_of_its_text():
    assert {field: tuple(map(int, values)) for field, values in GRIDS["paper"].items()} == {
        "quantizer.levels": (1, 2, 3, 4),
        "quantizer.codes": (64, 128, 256, 512),
        "quantizer.width": (32, 64, 128, 256),
        "recommender.buckets": (10, 50, 100, 200),
    }


@pytest.mark.parametrize("profile", GRIDS)
def test_the_base_of_a_profile_lies_on_its_grids(profile):
    defaults = {"quantizer": QuantizerConfig(), "recommender": RecommenderConfig()}
    for field, values in GRIDS[profile].items():
        stage, name = field.split(".")
        assert str(GENERATIVE[profile].get(field, getattr(defaults[stage], name))) in values


def test_four_grids_share_the_base_with_each_other_and_with_the_ablation_study(study, store):
    plan = study(name="hyperparameters", methods=("bbqrec",), settings=one_at_a_time(GRIDS["tiny"])).plan(store)
    assert len(plan.cells) == 16 and plan.count("recommender") == 13 and plan.count("quantizer") == 10
    base = {cell.run_key for cell in plan.cells if cell.setting in [f"{f}={v}" for f, v in BASE.items()]}
    buckets = {cell.quantizer_key for cell in plan.cells if cell.setting.startswith("recommender.buckets")}
    ablations = study().plan(store)
    full = next(cell for cell in ablations.cells if cell.method == "bbqrec")
    assert base == {full.run_key} and buckets == {full.quantizer_key}
    cells = [{"run_key": c.run_key, "quantizer_key": c.quantizer_key} for c in ablations.cells]
    for name in (ablations.key, "ablations"):  # the plain name is a copy
        store.write_json(f"study/{name}.json", {"key": ablations.key, "cells": cells})
    store.write_json("study/broken.json", {"key": "broken", "cells": "none"})
    assert shared_with(plan, store) == {ablations.key: 2}
    assert f"shared with study {ablations.key}: 2 of the runs" in outlook(plan, store)


def test_a_crossed_grid_has_all_combinations(study, store):
    grid = parse_grid(["quantizer.levels=1,2", "recommender.buckets=10,20,30"])
    plan = study(name="hyperparameters", methods=("bbqrec",), settings=crossed(grid)).plan(store)
    assert {cell.setting for cell in plan.cells} == {
        f"quantizer.levels={levels} recommender.buckets={buckets}" for levels in (1, 2) for buckets in (10, 20, 30)
    }
    assert plan.count("recommender") == 6 and plan.count("quantizer") == 2
    for cell in plan.cells:
        run = plan.runs[cell.run_key].config
        assert cell.setting == f"quantizer.levels={run.quantizer.levels} recommender.buckets={run.recommender.buckets}"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["quantizer.levels"], "not of the form"),
        (["quantizer.levels="], "not of the form"),
        (["quantizer.levels=1,,2"], "not of the form"),
        (["quantizer.levels=1,2,1"], "names a value twice"),
        (["quantizer.levels=1", "quantizer.levels=2"], "given twice"),
    ],
)
def test_a_grid_that_cannot_be_meant_is_refused(words, said):
    with pytest.raises(InputError, match=said):
        parse_grid(words)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--grid", "quantizer.level=1,2"], "levels"),
        (["--grid", "quantizer.levels=1,two"], "levels='two'"),
        (["--crossed"], "no fields to cross"),
        (["--set", "quantizer.codes=8"], "is what this study varies"),
        (["--profile", "huge"], "unknown profile"),
    ],
)
def test_bad_options_end_in_one_line(folder, tmp_path, capsys, options, said):
    options = [*options] if "--profile" in options else [*options, "--profile", "tiny"]
    assert main(Hyperparameters, ["--dataset", str(folder), "--store", str(tmp_path / "s"), "--dry-run", *options]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and said in error


def test_estimates_come_from_the_nearest_past_run_on_the_same_data(study, store):
    plan = study(methods=("bbqrec",), overrides={"recommender.d_ff": 128}).plan(store)
    run = next(run for run in plan.runs.values() if run.stage == "recommender")
    own = json.loads(json.dumps(run.config.described()["recommender"]))
    about = {"kind": "recommender", "fingerprint": run.config.fingerprint}
    near = Past(**about, config={**own, "epochs": 6}, seconds=60.0, epochs=6)
    far = Past(**about, config={**own, "d_ff": 1, "beam": 7}, seconds=1.0, epochs=3)
    other = Past(**{**about, "fingerprint": "f"}, config=own, seconds=9.0, epochs=3)
    assert estimate(run, [far, near, other]) == pytest.approx(30.0), "half the epochs"
    assert estimate(run, [far]) == 1.0
    assert estimate(run, [other]) is None


@pytest.mark.parametrize(
    "damage", [b"{", b"[]", b'{"key": "other"}', b'{"key": "other", "cells": ["a", {"run_key": []}]}']
)
def test_another_study_s_damaged_file_is_none_of_a_plan_s_business(study, store, damage):
    Path(store.url, "study").mkdir()
    Path(store.url, "study", "other.json").write_bytes(damage)
    plan = study(methods=("bbqrec",)).plan(store)
    keys = [{"run_key": key} for key in plan.runs]
    store.write_json("study/whole.json", {"key": "whole", "cells": keys})
    assert shared_with(plan, store) == {"whole": len(keys)}


def test_past_runs_are_both_stages_and_damage_is_left_out(store, tmp_path):
    for key in ("aaaa", "bbbb"):
        folder = tmp_path / key
        folder.mkdir()
        costs = {"quantizer_seconds": 4.0, "quantizer_epochs": 2, "recommender_seconds": 9.0, "recommender_epochs": 3}
        row = {"run_key": key, "quantizer_key": "q", "fingerprint": "f", "costs": costs}
        config = {"quantizer": {"epochs": 2}, "recommender": {"epochs": 3}}
        (folder / "row.json").write_text(json.dumps(row | ({"config": config} if key == "aaaa" else {})))
        store.publish("recommender", key, folder, "a")
    assert {(p.kind, p.seconds, p.epochs) for p in past_runs(store)} == {("quantizer", 4.0, 2), ("recommender", 9.0, 3)}
