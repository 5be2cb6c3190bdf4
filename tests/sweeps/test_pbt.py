"""The command: bad input in one line, the plan, what has to come before it, and one population with Ray."""

import contextlib
import json
import os
import random
import signal
from types import SimpleNamespace

import pytest
from ray.tune import CheckpointConfig
from rich.console import Console

from bbqrec.data import load_dataset
from bbqrec.methods import run_config
from bbqrec.store import Store
from sweeps import groundwork, pbt
from sweeps.command import main
from sweeps.evolution import Scheduler, Stopper, Watch, beside, identity
from sweeps.groundwork import lay_groundwork, missing
from sweeps.launch import Resources
from sweeps.pbt import PBT
from sweeps.population import Epoch, Population, PopulationBudget, first_values
from sweeps.search_spaces import Choices
from sweeps.series import Series
from sweeps.study import Study, load_datasets
from sweeps.tuned import read_tuned, write_tuned
from sweeps.tuning import Tuning

BUDGET = PopulationBudget(population=3, epochs=4, interval=1, seed=0)
SPACE = {"dropout": Choices((0.1, 0.2, 0.4))}


@pytest.fixture
def words(folder, tmp_path, monkeypatch) -> list[str]:
    """The options of a small population, in an empty working directory."""
    monkeypatch.chdir(tmp_path)
    return ["--dataset", str(folder), "--profile", "tiny", "--store", "runs", "--tuned", "tuned"]


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--method", "sasrek"], "unknown method 'sasrek': did you mean sasrec?"),
        (["--method", "bbqrec/no-mim"], "variant bbqrec/no-mim has no population: take bbqrec"),
        (["--population", "1"], "--population 1"),
        (["--interval", "12"], "--interval 12 leaves nothing to train"),
        (["--set", "recommender.epochs=3"], "use --epochs"),
        (["--set", "quantizer.levels=3"], "--set quantizer.levels is no field of sasrec"),
        (["--workers-per-run", "2"], "a member is trained by one process"),
        (["--max-concurrent", "2"], "--cpus-per-run instead"),
        (
            ["--set", "recommender.learning_rate=1e-3", "recommender.dropout=0.3", "recommender.weight_decay=0"],
            "--set leaves nothing that a population could vary",
        ),
    ],
)
def test_bad_input_is_one_line_and_starts_nothing(words, capsys, tmp_path, more, said):
    assert main(PBT, [*words, *more]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and said in error
    assert not (tmp_path / "tuned").exists()


def test_one_data_set_at_a_time_and_a_folder_that_can_be_written(words, folder, capsys, tmp_path):
    assert main(PBT, ["--dataset", str(folder), str(tmp_path)]) == 2
    assert "a population is of one data set" in capsys.readouterr().err
    (tmp_path / "tuned").mkdir()
    (tmp_path / "tuned" / "toy").write_text("in the way")
    assert main(PBT, [*words, "--untuned"]) == 2
    assert "give a writable --tuned folder" in capsys.readouterr().err


def test_a_dry_run_prints_the_first_values_and_what_comes_before(words, capsys, tmp_path):
    more = ["--method", "letter", "--population", "4", "--set", "recommender.dropout=0.15", "--dry-run"]
    assert main(PBT, [*words, *more]) == 0
    printed = capsys.readouterr().out
    assert "Plan of pbt: toy letter, 4 members of 12 epochs, compared every 2" in " ".join(printed.split())
    assert "before it: toy sasrec seed 0 recommender, toy letter seed 0 quantizer" in printed
    assert "starts again from its first epoch" in printed and "recommender.dropout=0.15" in printed
    assert not (tmp_path / "tuned").exists() and not (tmp_path / "runs").exists()


def test_a_population_starts_from_what_a_study_would_run(words, folder, capsys, tmp_path):
    about = {"method": "sasrec", "dataset": "toy", "fingerprint": load_dataset(folder).fingerprint, "profile": "tiny"}
    write_tuned(tmp_path / "tuned", {**about, "overrides": {"recommender.learning_rate": 0.0033}})
    assert main(PBT, [*words, "--dry-run"]) == 0
    printed = capsys.readouterr().out
    assert "│      0 │                0.0033 │" in printed and "tuned config" in printed
    assert main(PBT, [*words, "--dry-run", "--untuned"]) == 0
    assert "0.0033" not in capsys.readouterr().out


def test_the_quantizer_comes_first_and_is_the_studies(folder, store, monkeypatch, capsys):
    dataset = load_dataset(folder)
    run = run_config("tiger", dataset, 1, "tiny", None, {"tiger": {"recommender.epochs": 7}})
    (ahead,) = missing(run, "tiger", folder, store)
    study = Study(name="s", methods=("tiger",), datasets=(folder,), seeds=2, profile="tiny").plan(store)
    assert ahead.key in study.runs and study.runs[ahead.key].stage == ahead.stage == "quantizer"

    asked = []

    def compute(ledger, resources, **_):
        asked.append([run.key for run in ledger.waiting()])
        ledger.write()
        for run in ledger.missing:
            ledger.fail(run.key, "RuntimeError: no") if len(asked) > 1 else None

    monkeypatch.setattr(groundwork, "compute", compute)
    about = (run, "tiger", "tiny", folder, store, Resources())
    with pytest.raises(KeyboardInterrupt):
        lay_groundwork(*about, name="pbt", console=Console())
    assert lay_groundwork(*about, name="pbt", console=Console()) == {ahead.name: "RuntimeError: no"}
    assert asked == [[ahead.key]] * 2
    monkeypatch.setattr(Store, "has", lambda self, stage, key: True)
    assert missing(run, "tiger", folder, store) == []
    sasrec = run_config("sasrec", dataset, 1, "tiny")
    assert missing(sasrec, "sasrec", folder, store) == []
    assert lay_groundwork(sasrec, "sasrec", *about[2:], name="pbt", console=Console()) == {} and len(asked) == 2


def test_several_nodes_need_a_store_that_all_of_them_see(words, capsys, monkeypatch, tmp_path):
    monkeypatch.setattr("sweeps.connection.session", lambda *_, **__: contextlib.nullcontext())
    monkeypatch.setattr("sweeps.connection.ray.nodes", lambda: [{"Alive": True}] * 2)
    assert main(PBT, [*words, "--cluster", "head:6379"]) == 2
    error = capsys.readouterr().err
    assert "is a local path, but the cluster has 2 nodes" in error and error.count("\n") == 1
    assert not (tmp_path / "runs.pbt").exists()


def test_checkpoints_lie_beside_the_store(tmp_path):
    assert beside(Store(tmp_path / "runs")) == f"{tmp_path}/runs.pbt"
    for url, place in (("s3://bucket/a/runs", "s3://bucket/a/runs.pbt"), ("s3://bucket", "s3://bucket/.pbt")):
        assert beside(SimpleNamespace(url=url, is_local=False)) == place


class Paused:
    """What the scheduler needs of a trial."""

    experiment_tag, run_metadata = (
        "",
        SimpleNamespace(checkpoint_manager=SimpleNamespace(checkpoint_config=CheckpointConfig())),
    )

    def __init__(self, trial_id, config):
        self.trial_id, self.config = trial_id, config

    def set_config(self, config):
        self.config = config


def test_each_member_keeps_its_number_and_draws_follow_from_seed_and_epoch(folder, monkeypatch):
    run = run_config("sasrec", load_dataset(folder), 0, "tiny")
    scheduler = Scheduler(SPACE, BUDGET, "toy sasrec", run)
    trials = [Paused(name, {**identity(0, "toy sasrec", run), "values": {"dropout": 0.2}}) for name in "abc"]
    for trial in trials:
        scheduler.on_trial_add(SimpleNamespace(search_alg=None), trial)
    scheduler._trial_state[trials[0]].last_train_time = 7
    scheduler.on_trial_add(SimpleNamespace(search_alg=None), trials[0])  # as Ray does when a trial is tried again
    assert scheduler._trial_state[trials[0]].last_train_time == 7
    drawn = []

    def exploit(self, controller, trial, result):
        """As Ray does it: the whole config of the donor, changed."""
        trial.config = self._explore(trials[2].config)
        drawn.append((random.random(), trial.config["values"]))
        return "PAUSE"

    monkeypatch.setattr("sweeps.evolution.PopulationBasedTraining.on_trial_result", exploit)
    retried = SimpleNamespace(get_trials=lambda: [trials[1], trials[2], trials[0]])  # a's process died once
    state = random.getstate()
    for epoch in (1, 2, 1):
        assert scheduler.on_trial_result(retried, trials[0], {"epoch": epoch}) == "PAUSE"
        random.random()  # whatever else draws
        assert [trial.config["member"] for trial in trials] == [0, 1, 2]
        assert trials[0].config["name"] == "toy sasrec member 0" and trials[0].config["key"].endswith("-0000")
    assert drawn[0] == drawn[2] != drawn[1]
    random.setstate(state)
    scheduler.on_trial_result(retried, trials[0], {"epoch": 1})
    assert random.getstate() == state, "the program's own draws are left alone"


def test_one_member_that_fails_for_good_ends_the_population():
    watch = Watch(Population(budget=BUDGET), SPACE, Console(quiet=True))
    stopper = Stopper(watch, 4)
    assert not stopper.stop_all() and not stopper("t", {"epoch": 3}) and stopper("t", {"epoch": 4})
    watch.on_trial_error(0, [], SimpleNamespace(config={"name": "toy sasrec member 1"}, error_file=None))
    assert stopper.stop_all() and watch.failed == "toy sasrec member 1: no error was reported"


def test_what_members_report_is_taken_in_and_said(capsys):
    watch = Watch(Population(budget=BUDGET), SPACE, Console(width=200))
    about = {"dropout": 0.2, "diverged": "", "weights_of": -1}
    for member, score in enumerate((0.1, 0.3, -1.0)):
        lost = {"diverged": "loss is nan"} if score < 0 else {}
        watch.on_trial_result(0, [], None, {**about, "epoch": 1, "member": member, "score": score, **lost})
    report = {**about, "epoch": 2, "member": 2, "score": 0.4, "weights_of": 1, "dropout": 0.4}
    for _ in range(2):  # told twice, after a fault
        watch.on_trial_result(0, [], None, report)
    assert watch.population.epochs[2] == {
        1: Epoch(score=None, values={"dropout": 0.2}),
        2: Epoch(score=0.4, values={"dropout": 0.4}, weights_of=1),
    }
    printed = capsys.readouterr().out
    assert "member 2 diverged in epoch 1 with dropout=0.2: loss is nan" in printed
    assert "epoch 1/4: best validation NDCG@10 0.3000, lowest 0.1000" in printed
    assert "member 2 took over member 1 after epoch 1: dropout=0.4" in printed


@pytest.mark.parametrize(
    ("outcome", "status", "said"),
    [
        ("failed", 1, "failed: toy sasrec member 1: no; the same command starts again"),
        ("interrupted", 130, "interrupted: the same command starts again, as a population is not resumed"),
        ("diverged", 1, "failed: toy sasrec: every member diverged"),
    ],
)
def test_a_population_without_an_outcome_writes_nothing(words, capsys, tmp_path, monkeypatch, outcome, status, said):
    def evolve(run, method, folder, space, start, budget, *_, **__):
        population = Population(budget=budget)
        for member in range(budget.population if outcome == "diverged" else 1):
            for number in range(1, budget.epochs + 1):
                population.add(member, number, Epoch(score=None, values=start[member]))
        return population, "toy sasrec member 1: no" if outcome == "failed" else None

    monkeypatch.setattr(pbt, "evolve", evolve)
    assert main(PBT, words) == status
    assert said in capsys.readouterr().err
    assert not list((tmp_path / "tuned").rglob("*.json"))


@pytest.mark.fault
@pytest.mark.e2e
def test_a_member_that_is_killed_changes_nothing(words, tmp_path, monkeypatch):
    """Ray alone would compare the retried member with the others an epoch early, and mix the members up."""
    small = [*words, "--population", "4", "--epochs", "6", "--interval", "2", "--cpus-per-run", "1"]
    assert main(PBT, small) == 0
    quiet = json.loads((tmp_path / "tuned" / "toy" / "sasrec.pbt.json").read_text())
    killed, take_in = [], Watch.on_trial_result

    def kill(self, iteration, trials, trial, result, **info):
        if result["member"] == 2 and result["epoch"] == 3 and not killed:
            killed.append(result["pid"])
            os.kill(result["pid"], signal.SIGKILL)
        take_in(self, iteration, trials, trial, result, **info)

    monkeypatch.setattr(Watch, "on_trial_result", kill)
    assert main(PBT, ["again" if word == "tuned" else word for word in small]) == 0
    found = json.loads((tmp_path / "again" / "toy" / "sasrec.pbt.json").read_text())
    assert killed and quiet["exploits"] and {**found, "made": None} == {**quiet, "made": None}


@pytest.mark.e2e
def test_a_real_population_with_ray_replaces_a_hopeless_member(words, folder, tmp_path, capsys, monkeypatch):
    def hopeless(*arguments):
        values = first_values(*arguments)
        return [values[0], {**values[1], "recommender.learning_rate": 9.0}, values[2]]

    monkeypatch.setattr(pbt, "first_values", hopeless)
    assert main(PBT, [*words, "--population", "3", "--epochs", "4", "--interval", "2", "--cpus-per-run", "0.5"]) == 0
    printed = capsys.readouterr().out
    assert "member 1 took over member " in printed and "epoch 4/4: best validation NDCG@10" in printed
    path = tmp_path / "tuned" / "toy" / "sasrec.pbt.json"
    found = json.loads(path.read_text())
    assert [len(member["scores"]) for member in found["members"]] == [4, 4, 4]
    assert found["score"] == max(
        score for member in found["members"] for score in member["scores"] if score is not None
    )
    (exploit,) = [exploit for exploit in found["exploits"] if exploit["member"] == 1]
    assert exploit["after_epoch"] == 2 and exploit["before"]["recommender.learning_rate"] == 9.0
    assert exploit["values"]["recommender.learning_rate"] <= 5e-3, "back in the space"
    values = found["members"][1]["values"]
    assert values[:2] == [exploit["before"]] * 2 and values[2:] == [exploit["values"]] * 2
    scores = [member["scores"] for member in found["members"]]
    donor, bad = scores[exploit["weights_of"]], scores[1]
    assert (bad[1] or 0) < min(scores[0][1], scores[2][1]) and abs(bad[2] - donor[2]) < abs((bad[1] or 0) - donor[2])
    assert [line["epoch"] for line in found["schedule"]] == list(range(1, found["epoch"] + 1))
    assert found["schedule"][-1]["score"] == found["score"] and found["made"]["command"].startswith(
        "python sweeps/pbt.py"
    )

    store = Store(tmp_path / "runs")
    assert [store.keys(kind) for kind in ("trial", "recommender", "quantizer")] == [[], [], []]
    assert not (tmp_path / "runs.pbt").exists(), "the members' checkpoints are gone"
    assert read_tuned(tmp_path / "tuned", "toy", "sasrec") is None, "studies see nothing"
    logs = sorted(folder.name for folder in (tmp_path / "out" / "tensorboard" / "pbt").iterdir())
    assert logs == [f"toy-sasrec-member-{n}-pbt-{n:04}"[: len(logs[n])] for n in range(3)]

    asked = Tuning(methods=("sasrec",), dataset=(folder,), profile="tiny", trials=2, parallel=2, seed_points=(path,))
    (series,) = asked.series(load_datasets((folder,)), {})
    assert isinstance(series, Series)
    assert series.points == [point for point in [found["overrides"]] if point != series.default], "the default is tried"
    last = found["schedule"][-1]["values"]
    assert {name: found["overrides"][name] for name in last} == last and set(found["overrides"]) == set(series.space)
