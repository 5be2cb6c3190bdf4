"""A whole tuning without Ray: the runs that a ledger hands out are computed here, one after another, by fake stages."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import fake_stages
import pytest
from fake_stages import diary

from bbqrec import methods
from bbqrec.data import load_dataset
from bbqrec.errors import Diverged
from bbqrec.methods import METHODS
from bbqrec.store import Store
from sweeps.study import Study
from sweeps.trials import Budget
from sweeps.tuned import read_tuned
from sweeps.tuning import Tuning
from sweeps.tuning_ledger import TuningLedger

BUDGET = Budget(trials=6, epochs=4, grace=1, factor=2)
EPOCHS = {"quantizer.epochs": "2"}


@pytest.fixture(autouse=True)
def at_once(monkeypatch):
    monkeypatch.setenv("FAKE_STAGES", json.dumps({"seconds": 0}))


@pytest.fixture
def ledger_of(folder, tmp_path):
    """Makes the ledger of a tuning of `folder`; equal arguments make it again, as after a kill."""

    def make(*names: str, budget: Budget = BUDGET, store: str = "store", tuned: str = "tuned") -> TuningLedger:
        command = Tuning(methods=names, profile="tiny", tuned=str(tmp_path / tuned), **asdict(budget))
        given = EPOCHS if any(METHODS[name].quantizer for name in names) else {}
        series = command.series([(folder, load_dataset(folder))], given)
        return TuningLedger(series, Store(tmp_path / store), tmp_path / tuned, "python sweeps/tuning.py")

    return make


class Killed(Exception):
    """The driver is gone."""


def work(ledger: TuningLedger, epochs: float = float("inf"), last: bool = False) -> None:
    """Does what Ray does: the waiting runs one after another, at most so many `epochs`. `last`: the last one first."""
    dataset = load_dataset(next(iter(ledger.folders.values())))
    while not ledger.settled:
        ready = [run for run in ledger.waiting() if run.needs is None or ledger.status[run.needs] == "done"]
        run = ready[-1 if last else 0]
        ledger.start(run.key)
        stage = fake_stages.run_quantizer if run.stage == "quantizer" else fake_stages.run_recommender
        trial = {"trial": True} if run.stage == "trial" else {}
        try:
            for report in stage(run.config, dataset, ledger.store, attempt="here", **trial):
                metrics = {**report.metrics, "epoch": report.epoch}
                stops = ledger.stops(run.key, metrics)
                ledger.report(run.key, metrics)
                epochs -= 1
                if epochs <= 0:
                    raise Killed
                if stops:
                    break
        except Diverged as error:
            ledger.fail(run.key, str(error), hopeless=True)
        except RuntimeError as error:
            ledger.fail(run.key, str(error))
        else:
            ledger.finish(run.key)


def computed(ledger: TuningLedger) -> list[tuple[str, str, int]]:
    """Every epoch that was trained, in order."""
    return [(e["stage"], e["key"], e["epoch"]) for e in diary(ledger.store.url) if e["event"] == "epoch"]


def told(ledger: TuningLedger) -> dict:
    return {series.name: [trial.described() for trial in series.trials] for series in ledger.series}


def test_every_method_gets_the_same_budget_and_the_default_comes_first(ledger_of):
    ledger = ledger_of("sasrec", "tiger", "bbqrec")
    work(ledger)
    assert ledger.complete and ledger.count("done") == len(ledger.wanted) == 18 and ledger.count("failed") == 0
    for series in ledger.series:
        assert [trial.number for trial in series.trials] == list(range(6))
        run = series.run_of({})
        assert run.recommender.epochs == 4
        first = series.trials[0]
        assert first.key == run.recommender_key and first.end == "finished" and len(first.scores) == 4
        assert first.overrides["recommender.dropout"] == run.recommender.dropout
        others = [series.run_of(trial.overrides) for trial in series.trials]
        assert {other.recommender.epochs for other in others} == {4} and {other.seed for other in others} == {0}
        assert [other.recommender_key for other in others] == [trial.key for trial in series.trials]
        assert len({trial.key for trial in series.trials}) == 6
    assert len({series.budget for series in ledger.series}) == 1


def test_what_asha_stops_is_not_trained_on_and_keeps_its_best_score(ledger_of):
    ledger = ledger_of("sasrec")
    work(ledger)
    (series,) = ledger.series
    trained = {}
    for stage, key, epoch in computed(ledger):
        assert stage == "trial" and epoch == len(trained.setdefault(key, [])) + 1
        trained[key].append(epoch)
    ends = {trial.end for trial in series.trials}
    assert ends == {"finished", "stopped"}
    for trial in series.trials:
        assert len(trial.scores) == len(trained[trial.key]) and trial.score == max(trial.scores)
        assert (trial.end == "finished") == (len(trial.scores) == 4)
        expected = [epoch / 100 + trial.overrides["recommender.dropout"] for epoch in range(1, 5)]
        assert list(trial.scores) == pytest.approx(expected[: len(trial.scores)])
        assert ledger.store.load_progress("trial", trial.key) is None
    best = max(series.trials, key=lambda trial: trial.score)
    assert series.chosen == best and best.overrides["recommender.dropout"] == 0.5


def test_nothing_is_published_that_was_judged_on_the_test_split(ledger_of):
    ledger = ledger_of("sasrec", "tiger")
    work(ledger)
    assert ledger.store.keys("recommender") == [] and {stage for stage, _, _ in computed(ledger)} == {
        "trial",
        "quantizer",
    }
    assert "test" not in json.dumps([series.described() for series in ledger.series])


def test_more_trials_go_on_from_those_there_are(ledger_of):
    few = ledger_of("sasrec", "tiger", budget=replace(BUDGET, trials=3))
    work(few)
    trained = computed(few)
    more = ledger_of("sasrec", "tiger")
    assert more.count("done") == 6, "three of each method"
    work(more)
    assert computed(more)[: len(trained)] == trained and {
        name: trials[:3] for name, trials in told(more).items()
    } == told(few)
    straight = ledger_of("sasrec", "tiger", store="straight", tuned="straight-tuned")
    work(straight)
    assert told(straight) == told(more)


@pytest.mark.parametrize("cut", [1, 4, 5, 9, 13])
def test_a_tuning_that_is_cut_goes_on_as_if_it_had_not_been(ledger_of, cut):
    straight = ledger_of("sasrec", "tiger", store="straight", tuned="straight-tuned")
    work(straight)
    with pytest.raises(Killed):
        work(ledger_of("sasrec", "tiger"), cut)
    ledger = ledger_of("sasrec", "tiger")
    before = computed(ledger)
    assert not any(ledger.store.has(run.stage, run.key) for run in ledger.missing)
    work(ledger)
    assert told(ledger) == told(straight)
    # An epoch is saved before it is reported, so none is trained twice, and none that a straight run does not train.
    assert len(before) == cut and sorted(computed(ledger)) == sorted(computed(straight))

    again = ledger_of("sasrec", "tiger")
    assert again.best == straight.best and again.best.score == max(s.chosen.score for s in straight.series)
    assert again.complete and again.missing == [] and told(again) == told(straight)
    longer = ledger_of("sasrec", "tiger", budget=replace(BUDGET, trials=7))
    assert [len(series.told) for series in longer.series] == [6, 6]
    assert {run.name.removesuffix(" quantizer") for run in longer.missing} == {
        "toy sasrec trial 6",
        "toy tiger trial 6",
    }


def test_rounds_side_by_side_do_not_depend_on_who_is_faster(ledger_of):
    budget = replace(BUDGET, trials=7, parallel=3)
    one, other = (ledger_of("sasrec", budget=budget, store=name, tuned=name) for name in ("one", "other"))
    assert len(one.waiting()) == 3
    work(one)
    work(other, last=True)
    assert told(one) == told(other) and [key for _, key, _ in computed(one)] != [key for _, key, _ in computed(other)]


def test_trials_that_agree_on_the_quantizer_share_it(ledger_of):
    ledger = ledger_of("tiger", budget=replace(BUDGET, trials=20, epochs=1))
    work(ledger)
    (series,) = ledger.series
    quantizers = {series.run_of(trial.overrides).quantizer_key for trial in series.trials}
    trained = [key for stage, key, epoch in computed(ledger) if stage == "quantizer" and epoch == 1]
    assert sorted(trained) == sorted(quantizers) and len(quantizers) < 20


def test_a_published_run_of_the_same_config_gives_its_scores_and_is_cut_like_a_trial(ledger_of):
    straight = ledger_of("sasrec", store="straight", tuned="straight-tuned")
    work(straight)
    (series,) = straight.series
    stopped = next(trial for trial in series.trials if trial.end == "stopped")
    ledger = ledger_of("sasrec")
    for trial in (series.trials[0], stopped):
        list(fake_stages._stage("trial", trial.key, 4, series.run_of(trial.overrides), ledger.store, "earlier"))
    trained = len(computed(ledger))
    ledger = ledger_of("sasrec")
    assert len(ledger.series[0].told) >= 1
    work(ledger)
    assert told(ledger) == told(straight)
    assert len(computed(ledger)) == trained + sum(
        len(trial.scores) for trial in series.trials if trial.key not in (series.trials[0].key, stopped.key)
    )


def test_a_trial_that_diverged_is_told_as_such_and_never_again_computed(ledger_of, monkeypatch):
    straight = ledger_of("sasrec", store="straight", tuned="straight-tuned")
    work(straight)
    key = straight.series[0].chosen.key
    monkeypatch.setenv("FAKE_STAGES", json.dumps({"seconds": 0, "diverge": {key: "loss is nan"}}))
    ledger = ledger_of("sasrec")
    work(ledger)
    (series,) = ledger.series
    trial = next(trial for trial in series.trials if trial.key == key)
    assert (trial.end, trial.score, trial.scores) == ("diverged", None, ())
    assert ledger.complete and series.chosen.key != key
    again = ledger_of("sasrec")
    assert again.complete and told(again) == told(ledger)


def test_a_quantizer_that_diverges_costs_the_trials_that_read_it(ledger_of, monkeypatch):
    ledger = ledger_of("tiger")
    bad = ledger.waiting()[-1].key
    assert ledger.runs[bad].stage == "quantizer"
    monkeypatch.setenv("FAKE_STAGES", json.dumps({"seconds": 0, "diverge": {bad: "loss is nan"}}))
    work(ledger)
    (series,) = ledger.series
    for trial in series.trials:
        assert (trial.end == "diverged") == (series.run_of(trial.overrides).quantizer_key == bad)
    assert series.trials[0].end == "diverged" and series.chosen is not None and ledger.complete


def test_a_run_that_fails_ends_its_series_and_no_other(ledger_of, monkeypatch, tmp_path):
    ledger = ledger_of("sasrec", "tiger")
    bad = next(run for run in ledger.waiting() if run.stage == "quantizer")
    monkeypatch.setenv("FAKE_STAGES", json.dumps({"seconds": 0, "fail": {bad.key: "disk full"}}))
    work(ledger)
    sasrec, tiger = ledger.series
    assert sasrec.complete and not tiger.complete and tiger.told == {}
    assert tiger.failed == "toy tiger trial 0 quantizer: disk full" and ledger.count("failed") == 1
    assert ledger.settled and not ledger.complete and ledger.waiting() == []
    assert read_tuned(tmp_path / "tuned", "toy", "sasrec") and read_tuned(tmp_path / "tuned", "toy", "tiger") is None
    monkeypatch.setenv("FAKE_STAGES", json.dumps({"seconds": 0}))
    again = ledger_of("sasrec", "tiger")
    work(again)
    assert again.complete


def test_a_run_that_ends_without_its_artefact_failed(ledger_of):
    ledger = ledger_of("sasrec")
    (run,) = ledger.waiting()
    ledger.start(run.key)
    ledger.report(run.key, {"epoch": 1, "valid/ndcg@10": 0.5})
    ledger.finish(run.key)
    assert "does not hold its artefact" in ledger.series[0].failed


def test_reports_that_went_to_a_driver_that_is_no_more_are_read_from_the_store(ledger_of):
    with pytest.raises(Killed):
        work(ledger_of("sasrec"), 2)
    ledger = ledger_of("sasrec")
    (run,) = ledger.waiting()
    (trial,) = ledger.series[0].at_hand.values()
    assert len(trial.curve.scores) == 2
    list(fake_stages._stage("trial", run.config.recommender_key, 3, run.config, ledger.store, "a"))
    ledger.report(run.key, {"epoch": 4, "valid/ndcg@10": 0.5})
    (trial,) = ledger.series[0].at_hand.values()
    assert len(trial.curve.scores) == 4


def test_a_student_waits_for_its_teacher_s_tuning_and_takes_its_tuned_run(ledger_of, monkeypatch, folder, tmp_path):
    student = replace(METHODS["tiger"], teacher="sasrec", label="Student")
    monkeypatch.setitem(methods.METHODS, "student", student)
    ledger = ledger_of("student", "sasrec")
    teacher, taught = ledger.series
    assert (teacher.method, taught.method) == ("sasrec", "student") and taught.at_hand == {}
    work(ledger)
    assert ledger.complete
    config = taught.run_of(taught.chosen.overrides)
    assert config.teacher.recommender.dropout == teacher.chosen.overrides["recommender.dropout"] == 0.5
    assert config.teacher.recommender.epochs > 4  # a teacher has all its epochs
    assert ledger.store.keys("recommender") == [config.teacher.recommender_key]

    tuned = {"tuned": tmp_path / "tuned", "overrides": EPOCHS}
    plan = Study(name="s", methods=("student", "sasrec"), datasets=(folder,), profile="tiny", **tuned).plan(
        ledger.store
    )
    by_method = {cell.method: cell for cell in plan.cells}
    assert by_method["sasrec"].run_key == config.teacher.recommender_key in plan.done
    assert by_method["student"].quantizer_key == config.quantizer_key in plan.done
    assert by_method["student"].tuned == "tuned config; tuned config (sasrec's)"


def test_the_file_says_what_was_found_and_how(ledger_of, tmp_path):
    ledger = ledger_of("tiger")
    work(ledger)
    (series,) = ledger.series
    found = read_tuned(tmp_path / "tuned", "toy", "tiger")
    best = series.chosen
    assert found["overrides"] == best.overrides and (found["trial"], found["score"]) == (best.number, best.score)
    assert found["default_score"] == series.trials[0].score and found["set"] == EPOCHS and found["seed"] == 0
    assert found["budget"] == {"trials": 6, "epochs": 4, "grace": 1, "factor": 2, "stop": "asha", "parallel": 1}
    assert (found["dataset"], found["profile"]) == ("toy", "tiny")
    assert found["fingerprint"] == series.dataset.fingerprint
    assert [trial["score"] for trial in found["trials"]] == [trial.score for trial in series.trials]
    assert found["space"].keys() == series.space.keys() == found["overrides"].keys()
    made = found["made"]
    assert made.keys() == {"commit", "dirty", "date", "command", "versions"}
    assert {"python", "optuna", "ray", "torch"} <= made["versions"].keys()


def test_a_file_that_would_say_the_same_is_left_alone(ledger_of, tmp_path):
    work(ledger_of("sasrec"))
    path = Path(tmp_path, "tuned", "toy", "sasrec.json")
    path.write_text(path.read_text().replace('"date": "', '"date": "once, '))
    again = ledger_of("sasrec")
    again.write(final=True)
    assert "once, " in path.read_text()
    longer = ledger_of("sasrec", budget=replace(BUDGET, trials=7))
    work(longer)
    assert "once, " not in path.read_text()
