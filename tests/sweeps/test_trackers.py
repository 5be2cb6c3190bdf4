"""Trackers: what they are told, and what they refuse. MLflow and W&B where they are installed."""

import importlib.util

import pytest
from tensorboardX.proto.event_pb2 import Event

from bbqrec.errors import InputError
from sweeps.command_line import without_passwords
from sweeps.trackers import TensorBoard, Trackers, reported

RESULT = {"valid/ndcg@10": 0.25, "loss": 2, "stage": "recommender", "epoch": 3, "epochs": 7, "pid": 9, "done": True}


class Trial:
    """What a tracker looks at of Tune's trial."""

    def __init__(self, key: str = "0123456789abcdef", name: str = "toys bbqrec/s seed 0 recommender") -> None:
        self.config = {"key": key, "name": name, "run": {"seed": 0}}


def scalars(folder) -> dict[tuple[str, int], float]:
    """(tag, step) -> value of every event file below a folder, without tensorboard itself."""
    found = {}
    for path in sorted(folder.rglob("events.out.tfevents.*")):
        data = path.read_bytes()
        while data:
            size = int.from_bytes(data[:8], "little")
            event = Event.FromString(data[12 : 12 + size])
            found |= {(v.tag, event.step): v.simple_value for v in event.summary.value if v.HasField("simple_value")}
            data = data[12 + size + 4 :]
    return found


def test_tensorboard_has_a_folder_per_run_and_goes_on_in_it(tmp_path):
    for epoch in (1, 2):  # the second as another driver, after a fault
        board = TensorBoard(tmp_path / "logs")
        board.on_trial_start(0, [], Trial())
        board.on_trial_result(0, [], Trial(), {**RESULT, "epoch": epoch, "loss": 3 - epoch})
        board.on_trial_result(0, [], Trial("f" * 16, "other"), RESULT)
        board.on_trial_result(0, [], Trial(), {"hopeless": "loss is nan"})
        board.on_experiment_end([])
    assert [path.name for path in (tmp_path / "logs").iterdir()] == ["toys-bbqrec-s-seed-0-recommender-89abcdef"]
    assert scalars(tmp_path) == {
        ("recommender/loss", 1): 2.0,
        ("recommender/loss", 2): 1.0,
        ("recommender/valid/ndcg_10", 1): 0.25,
        ("recommender/valid/ndcg_10", 2): 0.25,
    }


def test_a_run_of_many_settings_has_a_folder_too(tmp_path):
    name = "toys bbqrec seed 0 " + " ".join(f"recommender.a_field_of_some_length={value}" for value in range(9))
    board = TensorBoard(tmp_path)
    board.on_trial_start(0, [], Trial(name=name))
    board.on_experiment_end([])
    assert [path.name[-9:] for path in tmp_path.iterdir()] == ["-89abcdef"]


def test_only_a_run_s_own_numbers_are_tracked():
    assert reported(RESULT | {"time_this_iter_s": 1.0, "training_iteration": 4}) == {"valid/ndcg@10": 0.25, "loss": 2.0}


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="--logs"):
        Trackers(logs=tmp_path / "file").callbacks("ablations")


@pytest.mark.parametrize("package", ["mlflow", "wandb"])
def test_a_tracker_that_is_not_installed(tmp_path, monkeypatch, package):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=rf"--{package} needs.*pip install"):
        Trackers(logs=tmp_path, **{package: "x"})


def test_wandb_without_a_key_is_found_out_before_the_study_starts(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    for name in ("WANDB_API_KEY", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    with pytest.raises(InputError, match="WANDB_API_KEY"):
        Trackers(logs=tmp_path, wandb="bbqrec")
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert Trackers(logs=tmp_path, wandb="bbqrec").wandb == "bbqrec"


def test_mlflow_that_cannot_be_used_is_one_line(tmp_path):
    pytest.importorskip("mlflow", reason="mlflow is not installed")
    (tmp_path / "file").write_text("")
    _, callback = Trackers(logs=tmp_path, mlflow=f"sqlite:///{tmp_path}/file/mlflow.db").callbacks("ablations")
    with pytest.raises(InputError, match="--mlflow"):
        callback.setup()


def test_a_password_stays_out_of_study_files():
    command = "python sweeps/ablations.py --mlflow https://me:secret@host:5000/x --store s3://bucket/runs"
    expected = "python sweeps/ablations.py --mlflow https://***@host:5000/x --store s3://bucket/runs"
    assert without_passwords(command) == expected
    assert without_passwords(command.replace("secret", "sec@ret")) == expected


def test_mlflow_has_a_run_with_epochs_as_steps(tmp_path):
    mlflow = pytest.importorskip("mlflow", reason="mlflow is not installed")
    pytest.importorskip("sqlalchemy", reason="sqlalchemy is not installed")
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    _, callback = Trackers(logs=tmp_path, mlflow=uri).callbacks("ablations")
    callback.setup()
    own = Trial()
    callback.log_trial_start(own)
    for epoch in (3, 4):
        callback.log_trial_result(0, own, {**RESULT, "epoch": epoch})
    callback.log_trial_result(0, own, {"hopeless": "loss is nan"})
    callback.log_trial_end(own)
    client = mlflow.MlflowClient(tracking_uri=uri)
    (run,) = client.search_runs([client.get_experiment_by_name("bbqrec/ablations").experiment_id])
    assert run.info.status == "FINISHED" and run.data.params["key"] == own.config["key"]
    history = client.get_metric_history(run.info.run_id, "valid/ndcg_10")
    assert [(entry.step, entry.value) for entry in history] == [(3, 0.25), (4, 0.25)]
