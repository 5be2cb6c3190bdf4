"""Table 6's command: whose models it measures, that every user is decoded, and bad input."""

import json
import uuid
from pathlib import Path

import numpy as np
import pytest
import torch

from analysis.inference import load_measured
from bbqrec.data import load_dataset
from bbqrec.evaluation import rank_users
from bbqrec.examples import evaluation_examples
from bbqrec.methods import run_config
from bbqrec.stages import run_all, run_quantizer
from bbqrec.store import Store
from sweeps import inference
from sweeps.command import main
from sweeps.inference import Inference, alternate, decoding, load

CPU = torch.device("cpu")
EPOCHS = {"quantizer.epochs": 1, "recommender.epochs": 1, "recommender.beam": 20}


def words(folder: Path, *more: str) -> list[str]:
    small = ["--users", "3", "--together", "4", "--repetitions", "2", "--beams", "5", "7"]
    sets = [f"{name}={value}" for name, value in EPOCHS.items()]
    return ["--dataset", str(folder), "--profile", "tiny", "--device", "cpu", *small, "--set", *sets, *more]


def test_finished_runs_are_measured_and_untrained_models_where_there_are_none(tmp_path, monkeypatch, folder, capsys):
    monkeypatch.chdir(tmp_path)
    dataset, store = load_dataset(folder), Store(tmp_path / "runs")
    run = run_config("bbqrec", dataset, 0, "tiny", EPOCHS)
    list(run_all(run, dataset, store, attempt=uuid.uuid4().hex))
    assert main(Inference, words(folder)) == 0
    printed = capsys.readouterr().out
    assert f"bbqrec: run {run.recommender_key}" in printed
    assert "tiger: untrained, IDs of an untrained quantizer" in printed
    assert "| Ours TIGER |" in printed.replace("  ", "")
    measured = load_measured(tmp_path / "out" / "inference")
    found = {(m.method, m.together, m.beam) for m in measured.measurements}
    assert found == {(method, n, beam) for method in ("tiger", "bbqrec") for n in (1, 4) for beam in (5, 7)}
    assert {m.users for m in measured.measurements} == {3, 12} and {m.repetitions for m in measured.measurements} == {2}
    assert all(m.low <= m.seconds <= m.high for m in measured.measurements)
    assert measured.about["device"] and measured.about["profile"] == "tiny" and "host" not in measured.about
    assert (tmp_path / "out" / "inference" / "table6.tex").exists()


def test_the_loaded_run_is_the_finished_one(tmp_path, folder):
    dataset, store = load_dataset(folder), Store(tmp_path / "runs")
    run = run_config("tiger", dataset, 0, "tiny", EPOCHS)
    list(run_quantizer(run, dataset, store, attempt="a"))
    _, before = load(run, store, dataset, CPU)
    assert before == f"untrained, IDs of quantizer {run.quantizer_key}"
    list(run_all(run, dataset, store, attempt="b"))
    task, weights = load(run, store, dataset, CPU)
    assert weights == f"run {run.recommender_key}" and not task.model.training
    examples = evaluation_examples(dataset, "test", run.recommender.max_history)
    ranks = np.load(next((tmp_path / "runs" / "recommender" / run.recommender_key).glob("*/ranks_test.npy")))
    assert np.array_equal(rank_users(task.model, task.trie, examples, 20), ranks)


def test_a_turn_decodes_every_user_once_in_batches_of_the_size_asked_for(folder, store, monkeypatch):
    dataset = load_dataset(folder)
    task, _ = load(run_config("bbqrec", dataset, 0, "tiny"), store, dataset, CPU)
    examples = evaluation_examples(dataset, "test", task.config.max_history)
    seen: list[np.ndarray] = []
    real = inference.generate
    monkeypatch.setattr(
        inference,
        "generate",
        lambda model, trie, history, *rest: seen.append(history) or real(model, trie, history, *rest),
    )
    rows = np.array([7, 3, 11, 19, 2])
    assert decoding(task, examples, rows, 5, 2, CPU)() > 0
    assert sorted(len(history) for history in seen) == [1, 2, 2]
    decoded = sorted(tuple(row[row >= 0].tolist()) for history in seen for row in history)
    assert decoded == sorted(tuple(h[h >= 0].tolist()) for h in examples.history[rows])


def test_methods_take_turns_and_the_first_round_does_not_count():
    order, clock = [], iter(range(100))
    turns = {name: lambda name=name: (order.append(name), float(next(clock)))[1] for name in ("a", "b")}
    assert alternate(turns, 2) == {"a": [2.0, 4.0], "b": [3.0, 5.0]}
    assert order == ["a", "b"] * 3


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--repetitions", "0"], "--repetitions 0 measures nothing"),
        (["--users", "-1"], "--users -1"),
        (["--together", "0"], "--together 0"),
        (["--beams", "50", "0"], "--beams 0"),
        (["--beams"], "--beams names none"),
        (["--threads", "0"], "--threads 0"),
        (["--profile", "tinny"], "tinny"),
        (["--set", "recommender.epoch=3"], "did you mean epochs?"),
        (["--set", "epochs"], "NAME=VALUE"),
        (["--out", "file"], "cannot write file"),
        (["--dataset", "nowhere"], "nowhere"),
    ],
)
def test_bad_input_is_one_line_and_status_2(tmp_path, monkeypatch, folder, capsys, more, said):
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("x")
    given = words(folder)
    if more[0] in given:  # instead of the one above
        start = given.index(more[0])
        end = next((i for i in range(start + 1, len(given)) if given[i].startswith("--")), len(given))
        del given[start:end]
    assert main(Inference, [*given, *more]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and said in error
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_what_is_written_is_json_without_the_machine_s_name(tmp_path, monkeypatch, folder):
    monkeypatch.chdir(tmp_path)
    assert main(Inference, words(folder, "--out", "here")) == 0
    assert json.loads(Path("here/inference.json").read_text())["about"]["command"].startswith(
        "python sweeps/inference.py"
    )
