"""A sweep as a Ray Job: what is sent and what is refused; a job from the laptop to the tables, one that is stopped."""

import json
import shlex
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
from job_cluster import job_cluster

from bbqrec.errors import InputError
from bbqrec.provenance import source_state
from bbqrec.store import Store
from sweeps import job, jobs, submission
from sweeps.ablations import Ablations
from sweeps.command import main
from sweeps.command_line import options_of
from sweeps.pbt import PBT
from sweeps.submission import Submission, check, sent, submit
from sweeps.tuning import Tuning

ROOT = Path(__file__).parents[2]


def test_options_are_read_as_tyro_reads_them():
    words = ["--seeds", "2", "--max_concurrent=3", "--set", "a=1", "b=2", "--shared-store"]
    assert options_of(words) == {
        "--seeds": ["2"],
        "--max-concurrent": ["3"],
        "--set": ["a=1", "b=2"],
        "--shared-store": [],
    }


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "--submit with store"),
        (["--shared-store", "--cluster", "10.0.0.1:6379"], "--submit and --cluster 10.0.0.1:6379"),
        (["--shared-store", "--mlflow", "sqlite:///mlflow.db"], "would be written on the head"),
        (["--shared-store", "--mlflow", "http://me:secret@host:5000"], "holds a password"),
        (["--shared-store"], "job server http://127.0.0.1:9 cannot be reached: check that the head runs"),
        (["--shared-store", "--seeds", "0"], "--seeds 0"),  # found out here, not by the job
    ],
)
def test_what_cannot_be_a_job_is_one_line(folder, tmp_path, capsys, monkeypatch, words, said):
    monkeypatch.chdir(tmp_path)
    assert main(Ablations, ["--dataset", str(folder), "--submit", "http://127.0.0.1:9", *words]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and said in error and "secret" not in error
    assert not list(tmp_path.rglob("study"))


def test_a_local_store_is_refused_before_anything_is_written(tmp_path):
    store = Store(tmp_path / "runs", writable=False)
    with pytest.raises(InputError, match=r"--submit with store .*runs, a path that the cluster does not see") as caught:
        check(store, shared=False, cluster=None, mlflow=None)
    assert "--shared-store" in caught.value.remedy and not (tmp_path / "runs").exists()
    check(store, shared=True, cluster="auto", mlflow="https://host")


def test_what_is_sent_names_nothing_that_only_the_laptop_has(tmp_path, store):
    tuned, points, study = tmp_path / "mine", tmp_path / "points.json", tmp_path / "my_study.py"
    (tuned / "toys").mkdir(parents=True)
    (tuned / "toys" / "tiger.json").write_text("{}")
    points.write_text("[]")
    study.write_text("print()")
    box = tmp_path / "box"
    (box / "sweeps").mkdir(parents=True)
    (box / "sweeps" / "tuning.py").write_text("")
    job = Submission(address="", command="", study="tuning-1", profile="small", folders={"f00": "/home/me/toys"})
    words = f"--dataset {tmp_path} --store ~/runs --submit --out {tmp_path}/out --logs=/l --tuned {tuned} --trials 3"
    words += f" --seed-points {points} {points} --cluster auto --no-dashboard --shared-store"
    expected = f"--dataset store:f00 --store {store.url} --tuned given/tuned/mine --trials 3 --seed-points "
    expected += "given/seed-points/points.json given/seed-points/also-points.json --shared-store "
    expected += "--profile small --cluster"
    assert shlex.join(sent("sweeps/tuning.py", words.split(), job, store, box)) == f"sweeps/tuning.py {expected}"
    assert (box / "given/tuned/mine/toys/tiger.json").exists() and (box / "given/seed-points/also-points.json").exists()
    words = ["--tuned", str(tmp_path / "new" / "tuned")]  # to be made by the job, which is to write to its own folder
    assert sent("sweeps/tuning.py", words, job, store, box)[:3] == ["sweeps/tuning.py", "--tuned", "given/tuned/tuned"]
    assert not (box / "given/tuned/tuned").exists()
    assert sent(str(study), [], job, store, box)[0] == "my_study.py" and (box / "my_study.py").read_text() == "print()"
    with pytest.raises(InputError, match="cannot send"):
        sent(str(tmp_path / "gone.py"), [], job, store, box)


def test_the_same_study_is_not_submitted_twice_and_a_job_has_no_data_of_another_store(monkeypatch, store):
    about = {"bbqrec": "0", "study": "ablations-1", "store": store.url}
    status = SimpleNamespace(is_terminal=lambda: False)
    runs = SimpleNamespace(submission_id="ablations-1-2026", metadata=about, status=status)
    monkeypatch.setattr(submission, "connected", lambda address: _entered(SimpleNamespace(ours=lambda: [runs])))
    job = Submission(address="auto", command="python sweeps/x.py", study="ablations-1", profile="tiny", folders={})
    with pytest.raises(InputError, match="ablations-1 runs already, as job ablations-1-2026") as caught:
        submit(job, store, None)
    assert "follow ablations-1-2026" in caught.value.remedy
    with pytest.raises(InputError, match="has no data set f00"):
        submission.folder_of(Path("store:f00"), store)
    assert submission.folder_of(Path("data/toys"), store) == Path("data/toys")


def test_tunings_that_start_from_other_points_are_two_studies(folder, tmp_path, monkeypatch):
    studies: list[str] = []
    monkeypatch.setattr(submission, "submit", lambda job, store, console: studies.append(job.study) or 0)
    words = ["--dataset", str(folder), "--methods", "tiger", "--trials", "2", "--epochs", "1", "--submit"]
    words += ["--store", str(tmp_path / "runs"), "--shared-store", "--tuned", str(tmp_path / "tuned")]
    for number, rate in enumerate((0.001, 0.002, 0.002)):
        found = {"method": "tiger", "dataset": "", "fingerprint": "", "profile": "", "overrides": {}}
        found["overrides"] = {"recommender.learning_rate": rate}
        (tmp_path / f"{number}.json").write_text(json.dumps(found))
        assert main(Tuning, [*words, "--seed-points", str(tmp_path / f"{number}.json")]) == 0
    assert studies[0] != studies[1] == studies[2]


class _entered:
    def __init__(self, value: object) -> None:
        self.value = value

    def __enter__(self) -> object:
        return self.value

    def __exit__(self, *error: object) -> None:
        pass


@pytest.mark.parametrize(
    ("command", "words", "study"),
    [
        (Tuning, ["--methods", "tiger", "--trials", "1", "--epochs", "1"], "tuning-"),
        (PBT, ["--method", "tiger", "--population", "4", "--epochs", "2", "--interval", "1"], "pbt-"),
    ],
)
def test_tuning_is_submitted_too_and_leaves_its_files_in_the_store(
    command, words, study, folder, store, tmp_path, monkeypatch, capsys
):
    sent = []
    monkeypatch.setattr("sweeps.submission.submit", lambda job, store, console: sent.append(job) or 0)
    monkeypatch.setenv("PWD", str(tmp_path))
    given = ["--dataset", str(folder), "--profile", "tiny", "--store", store.url, "--shared-store", "--submit"]
    assert main(command, [*given, *words]) == 0
    assert sent[0].study.startswith(study) and sent[0].address == "auto" and sent[0].out == ""
    assert list(sent[0].folders.values()) == [str(folder)]
    found = {"dataset": "toy", "method": "tiger", "overrides": {}, "made": {}} | (
        {"schedule": []} if "pbt" in study else {}
    )
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", json.dumps({"metadata": {"bbqrec": "0", "study": sent[0].study}}))
    job.keep(store, "toy", "tiger", found)
    capsys.readouterr()
    assert jobs.main(["fetch", sent[0].study, "--store", store.url, "--out", str(tmp_path / "tuned")]) == 0
    written = tmp_path / "tuned" / "toy" / ("tiger.pbt.json" if "pbt" in study else "tiger.json")
    assert json.loads(written.read_text()) == found and str(written) in capsys.readouterr().out


@pytest.fixture(scope="module")
def address(s3_server) -> Iterator[str]:
    """The job server of a cluster that has never heard of us."""
    with job_cluster() as url:
        yield url


def words_of(folder: Path, store: str, address: str, method: str, *more: str) -> list[str]:
    return [
        "--dataset",
        str(folder),
        "--variants",
        method,
        "--profile",
        "tiny",
        "--store",
        store,
        "--submit",
        address,
        *more,
    ]


@pytest.mark.slow
@pytest.mark.e2e
def test_a_job_runs_without_the_laptop_and_its_tables_are_fetched(
    folder, s3_url, address, tmp_path, capfd, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    less = ["--set", "recommender.epochs=1"]
    assert main(Ablations, words_of(folder, s3_url, address, "sasrec", *less, "--out", "mine")) == 0
    printed = capfd.readouterr().out
    name = next(line.split()[3].rstrip(";") for line in printed.splitlines() if line.startswith("submitted as job "))
    assert name.startswith("ablations-") and f"python -m sweeps.jobs follow {name} --address {address}" in printed
    assert not list(tmp_path.iterdir())

    assert jobs.main(["follow", name[:12], "--address", address]) == 0
    printed = capfd.readouterr().out
    assert "store:" in printed and str(folder) not in printed.partition("Plan of study")[0]
    assert "cluster of 1 node, 2 CPUs, 0 GPUs: a run gets 2 CPUs" in printed
    assert "done 1/1, running 0, failed 0" in printed
    assert f"tables and figures of study {name[:18]}: python -m sweeps.jobs fetch {name}" in printed

    study = Store(s3_url).load_json(f"study/{name[:18]}.json")
    assert study["command"].startswith("python ") and f"--dataset {folder}" in study["command"]
    row = Store(s3_url).read_json("recommender", study["cells"][0]["run_key"], "row.json")
    assert row["provenance"].items() >= source_state().items()  # of this checkout, as the job has none
    assert jobs.main(["list", "--address", address]) == 0 and f"{name}  done" in capfd.readouterr().out
    assert jobs.main(["fetch", name, "--address", address]) == 0
    assert "cells: 1 done" in capfd.readouterr().out
    assert list(pd.read_csv("mine/rows.csv")["status"]) == ["done"] and Path("mine/table3.tex").exists()
    assert jobs.main(["fetch", name, "--store", s3_url, "--out", "again"]) == 0  # the cluster may be gone
    assert Path("again/rows.csv").read_bytes() == Path("mine/rows.csv").read_bytes()
    assert jobs.main(["stop", name, "--address", address]) == 0 and "ended already: done" in capfd.readouterr().out
    assert (
        main(Ablations, words_of(folder, s3_url, address, "sasrec", *less, "--out", "here")) == 0
    )  # nothing is left to send
    assert "submitted" not in capfd.readouterr().out and Path("here/table3.md").exists()


@pytest.mark.slow
@pytest.mark.e2e
def test_a_job_that_is_stopped_writes_its_study_and_loses_nothing(
    folder, s3_url, address, tmp_path, capfd, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    words = words_of(folder, s3_url, address, "tiger", "--set", "quantizer.epochs=100000", "--cpus-per-run", "1")
    assert main(Ablations, words) == 0
    printed = capfd.readouterr().out
    name = next(line.split()[3].rstrip(";") for line in printed.splitlines() if line.startswith("submitted as job "))
    store, deadline = Store(s3_url), time.monotonic() + 120

    def checkpoint() -> int:
        study = store.load_json(f"study/{name[:18]}.json")
        saved = study and store.load_progress("quantizer", study["cells"][0]["quantizer_key"])
        return saved.epoch if saved else 0

    while checkpoint() < 2:
        assert time.monotonic() < deadline, "it never began"
        time.sleep(0.2)
    assert main(Ablations, words) == 2 and f"{name[:18]} runs already, as job {name}" in capfd.readouterr().err
    assert jobs.main(["fetch", name, "--address", address]) == 0 and "cells: 1 running" in capfd.readouterr().out
    before = checkpoint()
    assert jobs.main(["stop", name, "--address", address]) == 0
    assert f"{name}: stopped" in capfd.readouterr().out
    study = store.load_json(f"study/{name[:18]}.json")
    assert [cell["status"] for cell in study["cells"]] == ["pending"] and checkpoint() >= before
    assert jobs.main(["follow", name, "--address", address]) == 130
    printed = capfd.readouterr()
    assert "interrupted: run the same command again" in printed.out and "stopped: submit" in printed.err
    assert not [file for file in store._files.tree("") if file.startswith(".writable")]
