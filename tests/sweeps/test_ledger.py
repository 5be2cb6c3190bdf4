"""The state of a study and the study file."""

import json

import fake_stages
import pytest

from bbqrec.data import load_dataset
from bbqrec.errors import InputError
from sweeps.command import _status
from sweeps.ledger import Ledger


@pytest.fixture
def ledger(study, store) -> Ledger:
    """Two cells on one quantizer, one on another."""
    return Ledger(
        study(methods=("bbqrec", "bbqrec/s", "bbqrec/no-u")).plan(store), store, "python sweeps/x.py --seeds 1"
    )


def statuses(ledger: Ledger) -> list[str]:
    return [cell["status"] for cell in ledger.cells()]


def test_the_study_file_says_what_was_asked_and_what_became_of_it(ledger, store):
    full = ledger.plan.cells[0]
    ledger.start(full.quantizer_key)
    assert statuses(ledger) == ["running", "running", "pending"]
    ledger.fail(full.quantizer_key, "ValueError: loss is nan")
    ledger.write()
    written = store.load_json("study/ablations.json")
    assert {key: written[key] for key in ("name", "command", "profile", "overrides")} == {
        "name": "ablations",
        "command": "python sweeps/x.py --seeds 1",
        "profile": "tiny",
        "overrides": {"quantizer.epochs": 2, "recommender.epochs": 3},
    }
    assert written["plan"] == ledger.plan.summary() and written["created"]
    assert written["cells"][0] == {
        "method": "bbqrec",
        "label": "BBQRec",
        "dataset": "toy",
        "fingerprint": next(iter(ledger.plan.folders)),
        "seed": 0,
        "setting": None,
        "quantizer_key": full.quantizer_key,
        "run_key": full.run_key,
        "teacher_key": None,
        "tuned": None,
        "note": None,
        "status": "failed",
        "error": "quantizer failed: ValueError: loss is nan",
    }
    assert [cell["status"] for cell in written["cells"]] == ["failed", "failed", "pending"]


def test_a_config_that_diverges_is_not_worth_trying_again(ledger, capsys):
    full, _, other = ledger.plan.cells
    ledger.fail(full.quantizer_key, "quantizer diverged: lower quantizer.learning_rate", hopeless=True)
    ledger.fail(other.quantizer_key, "RuntimeError: out of memory")
    assert _status(ledger) == 1
    lines = capsys.readouterr().err.splitlines()
    assert [line.endswith("; the same command tries it again") for line in lines] == [False, False, True]


def test_a_finished_run_counts_by_the_score_that_selected_it(ledger, study, store, tmp_path):
    """Not by that of the wider beam that judges it: a running run reports the former."""
    key = ledger.plan.cells[0].run_key
    row = {"scores": {"valid": {"ndcg@10": 0.2}}, "selected_by": {"ndcg@10": 0.3, "users": 9, "beam": 20}}
    (tmp_path / "made").mkdir()
    (tmp_path / "made" / "row.json").write_text(json.dumps(row))
    store.publish("recommender", key, str(tmp_path / "made"), "a")
    best = Ledger(study(methods=("bbqrec",)).plan(store), store).best
    assert best is not None and best.score == 0.3


def test_the_study_file_follows_but_is_not_written_for_every_event(ledger, store, monkeypatch):
    now = 100.0
    monkeypatch.setattr("sweeps.ledger.time.monotonic", lambda: now)
    first, second = ledger.plan.cells[0].quantizer_key, ledger.plan.cells[2].quantizer_key
    ledger.start(first)
    assert [cell["status"] for cell in store.load_json("study/ablations.json")["cells"]] == statuses(ledger)
    before = statuses(ledger)
    ledger.start(second)
    assert [cell["status"] for cell in store.load_json("study/ablations.json")["cells"]] == before != statuses(ledger)
    now += 1.0
    ledger.keep_up()
    assert [cell["status"] for cell in store.load_json("study/ablations.json")["cells"]] == statuses(ledger)


def test_another_study_of_the_name_leaves_the_first_one_s_file(ledger, study, store):
    ledger.write()
    key = ledger.plan.key
    assert store.load_json(f"study/{key}.json") == store.load_json("study/ablations.json") == ledger.description()
    subset = Ledger(study(methods=("bbqrec",)).plan(store), store)
    subset.write()
    assert store.load_json("study/ablations.json") == subset.description()
    assert store.load_json(f"study/{key}.json") == ledger.description()
    assert store.json_names("study") == sorted(["ablations", key, subset.plan.key])


def test_done_means_published(ledger, study, store):
    cell = ledger.plan.cells[0]
    dataset = load_dataset(ledger.plan.runs[cell.run_key].folder)
    for key, stage in ((cell.quantizer_key, "quantizer"), (cell.run_key, "recommender")):
        list(getattr(fake_stages, f"run_{stage}")(ledger.plan.runs[key].config, dataset, store, attempt="here"))
        ledger.finish(key)
    assert statuses(ledger) == ["done", "pending", "pending"] and not ledger.complete
    again = Ledger(study(methods=("bbqrec",)).plan(store), store)
    assert again.complete and again.best.score == 0.03 and again.best.name == "toy bbqrec seed 0"


def test_a_teacher_that_fails_takes_along_what_it_teaches_and_nothing_else(study, store):
    ledger = Ledger(study(methods=("sasrec", "letter", "tiger")).plan(store), store)
    sasrec, letter, tiger = ledger.plan.cells
    ledger.start(sasrec.run_key)
    assert statuses(ledger) == ["running", "running", "pending"]
    ledger.fail(sasrec.run_key, "ValueError: no", hopeless=True)
    assert statuses(ledger) == ["failed", "failed", "pending"]
    assert ledger.errors == {
        sasrec.run_key: "ValueError: no",
        letter.quantizer_key: "recommender failed: ValueError: no",
        letter.run_key: "quantizer failed: recommender failed: ValueError: no",
    }
    assert ledger.hopeless == set(ledger.errors) and ledger.status[tiger.quantizer_key] == "pending"


def test_at_the_end_nothing_runs(ledger, store):
    ledger.start(ledger.plan.cells[0].quantizer_key)
    ledger.write(final=True)
    assert [cell["status"] for cell in store.load_json("study/ablations.json")["cells"]] == ["pending"] * 3


def test_a_passing_fault_of_the_store_stops_nothing_but_the_last_word_must_be_written(ledger, monkeypatch, caplog):
    def refuse(*arguments):
        raise InputError("store s3://x: connection reset", "check that the place exists and can be written")

    monkeypatch.setattr(ledger.store, "write_json", refuse)
    ledger.start(ledger.plan.cells[0].quantizer_key)
    assert "connection reset" in caplog.text
    with pytest.raises(InputError):
        ledger.write(final=True)


def test_the_best_validation_score_is_the_best_of_all_epochs(ledger):
    first, second = (cell.run_key for cell in ledger.plan.cells[:2])
    for key, score in ((first, 0.02), (second, 0.05), (first, 0.04)):
        ledger.report(key, {"valid/ndcg@10": score, "loss": 9.0})
    ledger.report(first, {"loss": 99.0})
    assert ledger.best.score == 0.05 and ledger.best.name == "toy bbqrec/s seed 0"
