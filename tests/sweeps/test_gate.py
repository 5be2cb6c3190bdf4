"""The order of runs, as Tune asks for them: no recommender before its quantizer, none after a failed one."""

import pickle

import pytest
from ray.tune.search import Searcher

from sweeps.gate import Gate
from sweeps.ledger import Ledger


@pytest.fixture
def ledger(study, store) -> Ledger:
    """Three cells on two quantizers."""
    return Ledger(study(methods=("bbqrec", "bbqrec/s", "bbqrec/no-u")).plan(store), store)


def gate_of(ledger: Ledger, concurrency: int | None = None) -> Gate:
    return Gate(ledger, lambda run: {"key": run.key, "stage": run.stage}, concurrency)


def test_recommenders_wait_outside_until_their_quantizer_is_done_and_then_go_first(ledger):
    gate = gate_of(ledger)
    full, similar, unshared = ledger.plan.cells
    first, second = gate.suggest("a"), gate.suggest("b")
    assert {first["key"], second["key"]} == {full.quantizer_key, unshared.quantizer_key}
    assert gate.suggest("c") is None  # nothing can start: no trial is made, so nothing waits in a slot
    ledger.status[full.quantizer_key] = "done"
    gate.on_trial_complete("a")
    assert [gate.suggest(name)["key"] for name in "cd"] == [full.run_key, similar.run_key]
    assert gate.suggest("e") is None
    ledger.status[unshared.quantizer_key] = "done"
    assert gate.suggest("e")["key"] == unshared.run_key
    assert gate.suggest("f") == Searcher.FINISHED


def test_a_finished_trial_opens_the_gate_only_when_its_artefact_is_published(ledger):
    gate = gate_of(ledger)
    gate.suggest("a"), gate.suggest("b")
    key = ledger.plan.cells[0].quantizer_key
    ledger.finish(key)
    assert ledger.status[key] == "failed" and "does not hold its artefact" in ledger.errors[key]
    gate.on_trial_complete("a")
    assert gate.suggest("c") is None  # the other quantizer is still at work


def test_recommenders_of_a_failed_quantizer_are_given_up(ledger):
    gate = gate_of(ledger)
    for trial in "ab":
        ledger.fail(gate.suggest(trial)["key"], "ValueError: no")
        gate.on_trial_complete(trial, error=True)
    assert gate.suggest("c") == Searcher.FINISHED
    assert {cell["error"] for cell in ledger.cells()} == {"quantizer failed: ValueError: no"}


def test_places_count_the_workers_of_live_runs(ledger):
    """Two workers for a recommender, one for a quantizer, three places."""
    workers = {"quantizer": 1, "recommender": 2}
    gate = Gate(ledger, lambda run: {"key": run.key, "workers": workers[run.stage]}, places=3)
    full, similar, unshared = ledger.plan.cells
    assert {gate.suggest(trial)["key"] for trial in "ab"} == {full.quantizer_key, unshared.quantizer_key}
    ledger.status[full.quantizer_key] = "done"
    assert gate.suggest("c") is None  # b and a recommender would take three, but a is still there
    gate.on_trial_complete("a")
    assert gate.suggest("c")["key"] == full.run_key
    assert gate.suggest("d") is None
    ledger.status[unshared.quantizer_key] = "done"
    gate.on_trial_complete("b")
    assert gate.suggest("d") is None  # one place is free
    ledger.status[full.run_key] = "done"
    gate.on_trial_complete("c")
    assert gate.suggest("d")["key"] == similar.run_key


def test_concurrency_counts_live_trials(ledger):
    gate = gate_of(ledger, concurrency=1)
    first = gate.suggest("a")
    assert gate.suggest("b") is None
    ledger.status[first["key"]] = "done"
    gate.on_trial_complete("a")
    assert gate.suggest("b")["stage"] == "recommender"  # ahead of the other quantizer, whose turn it was
    assert gate.suggest("c") is None


def test_a_quantizer_waits_for_its_teacher(study, store):
    ledger = Ledger(study(methods=("letter", "tiger")).plan(store), store)
    gate = gate_of(ledger)
    letter, tiger = ledger.plan.cells
    teacher = ledger.plan.runs[letter.quantizer_key].needs
    assert [gate.suggest(name)["key"] for name in "ab"] == [teacher, tiger.quantizer_key]
    assert gate.suggest("c") is None
    for before, after in ((teacher, letter.quantizer_key), (letter.quantizer_key, letter.run_key)):
        ledger.status[before] = "done"
        assert gate.suggest(after)["key"] == after
        assert gate.suggest("c") is None


def test_tune_can_pickle_it_whatever_the_ledger_holds(ledger):
    ledger.store = lambda: None
    assert pickle.loads(pickle.dumps(gate_of(ledger))).__dict__ == {}
