"""The command itself: options, bad input in one line, the plan, and one tuning with Ray and the real stages."""

import re
from pathlib import Path
from types import SimpleNamespace

import pytest

from analysis.tuning import load_tuned
from bbqrec.data import load_dataset
from bbqrec.methods import run_config
from bbqrec.store import Store
from sweeps import tuning
from sweeps.ablations import Ablations
from sweeps.command import main
from sweeps.search_spaces import TUNABLE
from sweeps.study import Study, load_datasets
from sweeps.tuned import read_tuned, write_tuned
from sweeps.tuning import Stopper, Tuning


@pytest.fixture
def words(folder, tmp_path, monkeypatch) -> list[str]:
    """The options of a small tuning, in an empty working directory."""
    monkeypatch.chdir(tmp_path)
    return ["--dataset", str(folder), "--profile", "tiny", "--store", "runs", "--tuned", "tuned"]


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--methods", "sasrek"], "unknown method 'sasrek': did you mean sasrec?"),
        (["--methods", "bbqrec/no-mim"], "variant bbqrec/no-mim is not tuned: tune bbqrec"),
        (["--methods"], "nothing to tune"),
        (["--trials", "0"], "--trials 0"),
        (["--epochs", "2", "--grace", "3"], "--grace 3 is longer than a trial"),
        (["--grace", "13"], "--grace 13 is longer than a trial"),
        (["--epochs", "0"], "--epochs 0"),
        (["--factor", "1"], "--factor 1"),
        (["--seed", "-1"], "--seed -1"),
        (["--set", "recommender.epochs=3"], "use --epochs"),
        (["--set", "recommender.droput=3"], "did you mean dropout?"),
        (["--set", "recommender.heads=3"], "heads=3 must divide d_model=32"),
        (["--cpus-per-run", "0"], "--cpus-per-run 0"),
        (["--fields", "recommender.droput"], "unknown field to vary 'recommender.droput': did you mean"),
        (["--fields", "recommender.encoder_layers"], "unknown field to vary 'recommender.encoder_layers'"),
        (["--fields", "recommender.dropout", "--set", "recommender.dropout=0.2"], "nothing of sasrec is left to vary"),
    ],
)
def test_bad_input_is_one_line_and_starts_nothing(words, capsys, tmp_path, more, said):
    options = more if more[0] == "--methods" else ["--methods", "sasrec", *more]
    assert main(Tuning, [*words, *options]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and said in error
    assert not (tmp_path / "tuned").exists()


def test_a_folder_that_cannot_be_written_is_refused(words, capsys, tmp_path):
    (tmp_path / "tuned").write_text("x")
    assert main(Tuning, [*words, "--methods", "sasrec"]) == 2
    assert "--tuned 'tuned' is no folder" in capsys.readouterr().err


def test_a_dry_run_prints_the_plan_and_stops(words, capsys, tmp_path):
    assert main(Tuning, [*words, "--dry-run", "--trials", "5", "--epochs", "9"]) == 0
    printed = capsys.readouterr().out
    assert f"Plan of tuning: {len(TUNABLE)} x 5 trials, stopped by ASHA" in printed
    for method in TUNABLE:
        assert re.search(rf"toy +│ {method} +│ +\d │ +9 │ +2, 6 │ +0 │ +5 │", printed)
    assert "sasrec: recommender.learning_rate 0.0003 to 0.005 (default 0.002)" in printed
    assert not (tmp_path / "tuned").exists() and not (tmp_path / "runs").exists()


def test_a_trial_has_its_profiles_epochs_by_default(folder, tmp_path):
    asked = Tuning(methods=("tiger", "sasrec"), dataset=(folder,), profile="tiny")
    found = {series.method: series for series in asked.series(load_datasets((folder,)), {})}
    for method, epochs, grace in (("tiger", 8, 2), ("sasrec", 12, 3)):
        whole = run_config(method, load_dataset(folder), 0, "tiny")
        assert whole.recommender.epochs == epochs == found[method].budget.epochs
        assert found[method].budget.grace == grace
        assert found[method].run_of({}).recommender_key == whole.recommender_key, "the default's trial is a study's run"


def test_the_plan_names_the_rule_that_stops_trials(words, capsys):
    rules = {"none": ("no stops", "-"), "median": ("stopped by the median rule", "3 and more")}
    for stop, (rule, epochs) in {**rules, "asha": ("stopped by ASHA", "3, 9")}.items():
        assert main(Tuning, [*words, "--methods", "sasrec", "--dry-run", "--stop", stop]) == 0
        printed = capsys.readouterr().out
        assert f"1 x 12 trials, {rule}" in printed
        assert re.search(rf"sasrec +│ +\d │ +12 │ +{epochs} │ +0 │ +12 │", printed)


def test_seed_points_are_tried_after_the_default_each_by_its_method(words, folder, tmp_path):
    point = {"recommender.learning_rate": 0.001, "recommender.d_model": 64}
    about = {"method": "sasrec", "dataset": "other", "fingerprint": "f", "profile": "small", "overrides": point}
    file = write_tuned(tmp_path / "elsewhere", about)
    about = {"dataset": (folder,), "profile": "tiny", "trials": 3, "parallel": 3, "seed_points": (file,)}
    asked = Tuning(methods=("sasrec", "gru4rec"), **about)
    made = asked.series(load_datasets((folder,)), {})
    tried = {}
    for series in made:
        series.advance(Store(tmp_path / "runs"))
        tried[series.method] = [trial.overrides for trial in series.at_hand.values()]
    default = tried["sasrec"][0]
    assert tried["sasrec"][1] == {**default, **point} != default
    assert tried["sasrec"][2] not in (default, {**default, **point})
    assert tried["gru4rec"][1] != {**tried["gru4rec"][0], **point}, "another method's point is not tried"


def test_seed_points_that_are_the_default_or_each_other_take_no_trial(folder, tmp_path):
    about = {"method": "sasrec", "fingerprint": "f", "profile": "small"}
    points = [{}, {"recommender.d_model": 64}, {"recommender.d_model": 64}]
    files = tuple(
        write_tuned(tmp_path, {**about, "dataset": f"d{n}", "overrides": point}) for n, point in enumerate(points)
    )
    asked = Tuning(methods=("sasrec",), dataset=(folder,), profile="tiny", seed_points=files)
    [series] = asked.series(load_datasets((folder,)), {})
    assert [point["recommender.d_model"] for point in series.points] == [64]


def test_a_seed_point_that_cannot_be_tried_is_named(words, capsys, tmp_path):
    assert main(Tuning, [*words, "--methods", "sasrec", "--seed-points", "no.json"]) == 2
    assert "--seed-points no.json does not exist" in capsys.readouterr().err
    point = {"recommender.dropout": 0.77}
    about = {"method": "sasrec", "dataset": "other", "fingerprint": "f", "profile": "small", "overrides": point}
    file = write_tuned(tmp_path / "elsewhere", about)
    assert main(Tuning, [*words, "--methods", "sasrec", "--seed-points", str(file)]) == 2
    assert "seed point recommender.dropout=0.77 is not in sasrec's space" in capsys.readouterr().err
    own = write_tuned(tmp_path / "tuned", about | {"dataset": "toy", "overrides": {}})
    assert main(Tuning, [*words, "--methods", "sasrec", "--seed-points", str(own)]) == 2
    assert "is what this command writes" in capsys.readouterr().err
    file = write_tuned(tmp_path / "elsewhere", about | {"overrides": {"recommender.learning_rate": "high"}})
    assert main(Tuning, [*words, "--methods", "sasrec", "--seed-points", str(file)]) == 2
    assert "seed point recommender.learning_rate=high is not in sasrec's space" in capsys.readouterr().err


def test_seed_points_of_methods_that_are_not_tuned_are_seen(words, capsys, tmp_path):
    about = {"dataset": "other", "fingerprint": "f", "profile": "small", "overrides": {"recommender.d_model": 64}}
    files = [str(write_tuned(tmp_path / "elsewhere", {"method": name, **about})) for name in ("sasrec", "gru4rec")]
    assert main(Tuning, [*words, "--methods", "sasrec", "--dry-run", "--seed-points", *files]) == 0
    assert "seed points: sasrec 1\n" in capsys.readouterr().out
    assert main(Tuning, [*words, "--methods", "bert4rec", "--dry-run", "--seed-points", *files]) == 2
    assert "--seed-points are of sasrec, gru4rec, not tuned here" in capsys.readouterr().err


def test_what_is_set_is_not_tuned(words, capsys):
    fixed = ["--set", "recommender.dropout=0.3", "quantizer.gamma=2"]
    assert main(Tuning, [*words, "--methods", "sasrec", "bbqrec", "--dry-run", *fixed]) == 0
    printed = capsys.readouterr().out
    assert "set: recommender.dropout=0.3, quantizer.gamma=2" in printed
    assert "dropout 0" not in printed and "quantizer.gamma 0" not in printed and "quantizer.beta 0.5" in printed


def test_the_fields_alone_are_tuned_of_the_methods_that_have_them(words, folder, capsys, tmp_path):
    fields = ("recommender.dropout", "recommender.layers", "recommender.encoder_layers")
    assert main(Tuning, [*words, "--methods", "sasrec", "tiger", "--dry-run", "--fields", *fields]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "sasrec: recommender.dropout 0.1 0.2 0.3 0.4 0.5" in printed and "learning_rate" not in printed
    asked = Tuning(methods=("sasrec", "tiger"), dataset=(folder,), profile="tiny", fields=fields, trials=3, parallel=3)
    found = {series.method: series for series in asked.series(load_datasets((folder,)), {})}
    for method, own in (("sasrec", {fields[0], fields[1]}), ("tiger", {fields[0], fields[2]})):
        series = found[method]
        series.advance(Store(tmp_path / "runs"))
        assert set(series.space) == own
        assert all(set(trial.overrides) == own for trial in series.at_hand.values())
        default = run_config(method, load_dataset(folder), 0, "tiny").recommender.learning_rate
        assert {trial.run.config.recommender.learning_rate for trial in series.at_hand.values()} == {default}


def test_a_tuning_that_was_interrupted_says_so(words, capsys, monkeypatch):
    monkeypatch.setattr(tuning, "compute", lambda *_, **__: None)
    assert main(Tuning, [*words, "--methods", "sasrec"]) == 130
    assert "run the same command again" in capsys.readouterr().err


def test_a_method_that_failed_is_named_and_the_status_is_1(words, capsys, monkeypatch):
    def fail(ledger, *_, **__):
        ledger.fail(ledger.waiting()[0].key, "RuntimeError: no")

    monkeypatch.setattr(tuning, "compute", fail)
    assert main(Tuning, [*words, "--methods", "sasrec"]) == 1
    seen = capsys.readouterr()
    assert "failed: toy sasrec: toy sasrec trial 0: RuntimeError: no; the same command tries it again" in seen.err
    assert "toy sasrec: toy sasrec trial 0: RuntimeError: no\n" in seen.out


def test_ray_stops_what_the_ledger_says():
    asked = []
    ledger = SimpleNamespace(stops=lambda key, result: asked.append(key) or result["epoch"] > 1)
    stopper = Stopper(ledger)
    results = [{"epoch": epoch, "config": {"key": "k"}} for epoch in (1, 2)]
    assert [stopper("t", result) for result in results] == [False, True] and asked == ["k", "k"]
    assert not stopper("t", {"hopeless": "nan", "config": {"key": "k"}}) and not stopper.stop_all()
    assert Stopper.__getstate__(stopper) == {}


@pytest.mark.parametrize(
    ("more", "expected"), [([], True), (["--untuned"], False), (["--tuned", ""], False), (["--tuned", "no"], None)]
)
def test_a_study_uses_the_tuned_folder_unless_told_otherwise(words, tmp_path, monkeypatch, capsys, more, expected):
    planned, plan = [], Study.plan
    monkeypatch.setattr(Study, "plan", lambda self, store: planned.append(self) or plan(self, store))
    (tmp_path / "tuned").mkdir()
    options = [word for word in words if more[:1] != ["--tuned"] or word not in ("--tuned", "tuned")]
    status = main(Ablations, [*options, "--dry-run", *more])
    if expected is None:
        assert status == 2 and "--tuned no is no folder" in capsys.readouterr().err
    else:
        assert status == 0 and planned[0].tuned == (Path("tuned") if expected else None)


def test_studies_look_where_tuning_writes():
    assert Ablations().tuned == Tuning().tuned and not Ablations().untuned


@pytest.mark.e2e
def test_a_real_tuning_with_ray_is_found_again_and_used_by_a_study(words, folder, tmp_path, capsys, monkeypatch):
    budget = ["--methods", "sasrec", "--trials", "4", "--epochs", "3", "--factor", "2", "--cpus-per-run", "1"]
    assert main(Tuning, [*words, *budget]) == 0
    printed = capsys.readouterr().out
    assert "done 4/4, running 0, failed 0" in printed and "Tuned by validation NDCG@10" in printed
    assert "toy sasrec: recommender.learning_rate=" in printed
    store, dataset = Store(tmp_path / "runs"), load_dataset(folder)
    found = read_tuned(tmp_path / "tuned", "toy", "sasrec")
    assert [trial["number"] for trial in found["trials"]] == [0, 1, 2, 3]
    assert {trial["end"] for trial in found["trials"]} <= {"finished", "stopped"}
    default = run_config("sasrec", dataset, 0, "tiny", {"recommender.epochs": 3})
    assert found["trials"][0]["key"] == default.recommender_key and found["score"] >= found["default_score"] > 0
    finished = [trial["key"] for trial in found["trials"] if trial["end"] == "finished"]
    assert store.keys("trial") == sorted(finished) and store.keys("recommender") == []
    for trial in found["trials"]:
        assert len(trial["scores"]) == 3 if trial["end"] == "finished" else len(trial["scores"]) < 3
        assert store.load_progress("trial", trial["key"]) is None

    [table] = load_tuned(tmp_path / "tuned")
    assert (table.method, table.trials, table.epochs, table.points) == ("sasrec", 4, 3, 0)
    assert table.score == found["score"] and table.chosen == found["overrides"]

    monkeypatch.setattr("sweeps.connection.session", None)  # Ray does not even start
    assert main(Tuning, [*words, *budget]) == 0
    assert read_tuned(tmp_path / "tuned", "toy", "sasrec") == found

    study = Study(name="s", methods=("sasrec",), datasets=(folder,), profile="tiny", tuned=tmp_path / "tuned")
    (cell,) = study.plan(store).cells
    run = run_config("sasrec", dataset, 0, "tiny", found["overrides"])
    assert cell.run_key == run.recommender_key and cell.note == "tuned config"
