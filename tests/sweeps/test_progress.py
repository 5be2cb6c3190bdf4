"""What is shown while a study runs, without Ray: times, counts, the ETA, and why a trial failed."""

import io
from types import SimpleNamespace

import pytest
from rich.console import Console
from small_data import SMALL

from bbqrec.datasets.synthetic import SyntheticConfig, prepare_synthetic
from sweeps.ledger import Best, Ledger
from sweeps.out_of_memory import LOW_ON_MEMORY
from sweeps.progress import Progress, duration, reason
from sweeps.study import Study
from sweeps.trainable import NOTE


class Clock:
    """Seconds that pass when told to."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def watched(study, store):
    """Progress of a study of two cells on one quantizer (2 epochs) with 3 epochs each, for two slots."""
    ledger = Ledger(study(methods=("bbqrec", "bbqrec/s")).plan(store), store)
    return Progress(ledger, Console(file=io.StringIO(), width=200), slots=2, clock=Clock())


def trial_of(run, **more) -> SimpleNamespace:
    return SimpleNamespace(config={"key": run.key, "stage": run.stage, "name": run.name}, **more)


def epoch(watched: Progress, run, number: int, of: int, seconds: float, **metrics) -> None:
    watched.clock.now += seconds
    watched.on_trial_result(1, [], trial_of(run), {"epoch": number, "epochs": of, **metrics})


def test_a_line_has_counts_eta_and_the_best_score(watched):
    quantizer, full, similar = watched.ledger.plan.missing
    watched.on_trial_start(1, [], trial_of(quantizer))
    epoch(watched, quantizer, 1, 2, 10.0)
    assert watched.line() == "[0:10] done 0/3, running 1, failed 0, ETA -, best validation NDCG@10 -"
    epoch(watched, quantizer, 2, 2, 20.0)
    watched.ledger.status[quantizer.key] = "done"
    watched.on_trial_start(1, [], trial_of(full))
    epoch(watched, full, 1, 3, 40.0, **{"valid/ndcg@10": 0.0314})
    # 2 + 3 epochs of 40 s are left, on two slots.
    assert watched.line() == (
        "[1:10] done 1/3, running 1, failed 0, ETA 1:40, best validation NDCG@10 0.0314 (toy bbqrec seed 0)"
    )
    watched.ledger.status[similar.key] = "failed"
    assert watched.eta() == 80.0  # one run left uses one slot


def test_a_cheap_model_s_epochs_do_not_count_for_an_expensive_one(folder, store):
    about = {"datasets": (folder,), "profile": "tiny", "overrides": {"recommender.epochs": 3}}
    ledger = Ledger(Study(name="s", methods=("sasrec", "gru4rec", "bert4rec"), **about).plan(store), store)
    watched = Progress(ledger, Console(file=io.StringIO()), slots=1, clock=Clock())
    sasrec, gru4rec, _ = ledger.missing
    for run, seconds in ((sasrec, 1.0), (gru4rec, 9.0)):
        watched.on_trial_start(1, [], trial_of(run))
        epoch(watched, run, 1, 3, seconds)
    assert watched.eta() == 2 * 1.0 + 2 * 9.0 + 3 * 5.0, "of the third nothing is known but the others' mean"


def test_an_eta_looks_at_each_report_once(watched):
    """And not once per run: a large study has thousands of both."""

    class Counted(list):
        read = 0

        def __iter__(self):
            Counted.read += 1
            return super().__iter__()

    quantizer, full, _ = watched.ledger.plan.missing
    epoch(watched, quantizer, 1, 2, 10.0)
    epoch(watched, full, 1, 3, 40.0)
    watched.costs.update({alike: Counted(costs) for alike, costs in watched.costs.items()})
    assert watched.eta() is not None
    assert Counted.read == 2, "of the recommenders, which are two, and of the quantizer"


def test_lines_come_every_few_seconds_and_events_at_once(watched, tmp_path):
    quantizer = watched.ledger.plan.missing[0]
    (tmp_path / "error.txt").write_text("Failure # 1 (occurred at noon)\nTraceback\nValueError: codes=[7] of range\n")
    with watched:
        for _ in range(60):
            watched.clock.now += 0.5
            watched.on_step_end(1, [])
        watched.on_trial_recover(1, [], trial_of(quantizer, error_file=str(tmp_path / "error.txt")))
    lines = watched.console.file.getvalue().splitlines()
    assert [line[:6] for line in lines] == ["[0:00]", "[0:10]", "[0:20]", "retryi", "[0:30]"]
    assert lines[3] == "retrying toy bbqrec seed 0 quantizer: ValueError: codes=[7] of range"


def test_on_a_terminal_the_panel_lists_the_running_runs(watched):
    watched.console = Console(file=io.StringIO(), width=120, force_terminal=True)
    quantizer = watched.ledger.plan.missing[0]
    with watched:
        watched.on_trial_start(1, [], trial_of(quantizer))
        epoch(watched, quantizer, 1, 2, 10.0)
        watched.show(force=True)
    shown = watched.console.file.getvalue()
    assert "toy bbqrec seed 0 quantizer" in shown and "epoch 1/2" in shown and "running 1" in shown


def test_names_are_text_and_no_markup(study, store, tmp_path):
    """A data set may be called anything."""
    prepare_synthetic(SyntheticConfig(users=53, seed=3, **SMALL), tmp_path / "x", "to[/red]y [b]")
    ledger = Ledger(study(methods=("bbqrec",), datasets=(tmp_path / "x",)).plan(store), store)
    quantizer = ledger.plan.missing[0]
    ledger.best = Best(0.5, "to[/red]y [b] bbqrec")
    console = Console(file=io.StringIO(), width=200, force_terminal=True)
    with Progress(ledger, console, slots=2, clock=Clock()) as watched:
        watched.on_trial_start(1, [], trial_of(quantizer))
        watched.show(force=True)
    assert console.file.getvalue().count("to[/red]y [b] bbqrec") >= 2


def test_the_reason_is_the_last_line_of_the_last_failure(tmp_path):
    file = tmp_path / "error.txt"
    file.write_text("Failure # 1 (occurred at x)\nKeyError: 'a'\nFailure # 2 (occurred at y)\nray::f()\nOSError: b\n\n")
    assert reason(SimpleNamespace(error_file=str(file))) == "OSError: b"
    file.write_text("Failure # 1 (occurred at x)\nThe actor died unexpectedly before finishing this task.\n\tpid: 7\n")
    assert reason(SimpleNamespace(error_file=str(file))).startswith("its process died")
    assert reason(SimpleNamespace(error_file=None)) == "no error was reported"


@pytest.mark.parametrize(
    ("seconds", "text"), [(None, "-"), (0, "0:00"), (59.6, "1:00"), (3599, "59:59"), (3661, "1:01:01")]
)
def test_durations(seconds, text):
    assert duration(seconds) == text


def test_what_a_trial_has_to_say_is_said_and_is_no_epoch(watched):
    recommender = watched.ledger.plan.missing[1]
    watched.on_trial_result(1, [], trial_of(recommender), {NOTE: "its quantizer was damaged"})
    assert watched.console.file.getvalue() == f"{recommender.name}: its quantizer was damaged\n"
    assert watched.epochs == {} and watched.ledger.errors == {}


def test_a_worker_that_was_ended_for_memory_is_told_from_one_that_was_killed(tmp_path):
    path = tmp_path / "error.txt"
    for error, said in (
        (LOW_ON_MEMORY, "its process was ended, as its machine ran low on memory"),
        ("The actor died unexpectedly", "its process died (killed, out of memory, or the node was lost)"),
        (
            "The actor c254bd36 is unavailable: The actor is temporarily unavailable: RpcError",
            "its process died (killed, out of memory, or the node was lost)",
        ),
    ):
        path.write_text(f"Failure # 1 (occurred at noon)\n{error}\n")
        assert reason(SimpleNamespace(error_file=str(path))) == said
