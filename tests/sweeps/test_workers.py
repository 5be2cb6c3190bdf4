"""Recommenders on several workers: which runs, what is reserved, whose fault it was; and a real study with a kill."""

import asyncio
import io
import json
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from rich.console import Console
from several_workers import WORLD, together

from bbqrec.data import load_dataset
from bbqrec.methods import run_from_json
from bbqrec.stages import run_recommender
from bbqrec.store import Store
from sweeps import workers
from sweeps.command import main
from sweeps.launch import Resources, launch
from sweeps.study import Plan, Run, Study
from sweeps.trainable import trial_config
from sweeps.tuning import Tuning
from sweeps.workers import Members, cause, trial_resources, workers_of

ROOT = Path(__file__).parents[2]


@pytest.fixture
def planned(folder, store) -> Callable[..., tuple[Plan, Run]]:
    """Plans a study of one method on the small data set: the plan and its last missing run."""

    def plan(method: str, **overrides) -> tuple[Plan, Run]:
        changes = {f"recommender.{name}": value for name, value in overrides.items()}
        study = Study(name="ablations", methods=(method,), datasets=(folder,), profile="tiny", overrides=changes)
        found = study.plan(store)
        return found, found.missing[-1]

    return plan


def test_quantizers_and_losses_that_compare_a_batch_s_examples_take_one_worker(planned):
    runs = [run for method in ("bbqrec", "letter", "gru4rec") for run in planned(method)[0].missing]
    assert {(run.stage, workers_of(run, 3)) for run in runs} == {("quantizer", 1), ("recommender", 3)}
    assert [workers_of(run, 1) for run in runs] == [1] * len(runs)
    assert workers_of(planned("gru4rec", loss="top1")[1], 3) == 1


def test_a_trial_of_one_worker_reserves_it_and_one_of_a_group_next_to_nothing(planned, store):
    _, run = planned("sasrec")
    each = {"store": store.url, "threads": 1, "cpus": 2.0, "gpus": 0.5}
    assert trial_resources(trial_config(run, workers=1, **each)).bundles == [{"CPU": 2.0, "GPU": 0.5}]
    (driver,) = trial_resources(trial_config(run, workers=4, **each)).bundles
    assert set(driver) == {"CPU"} and 0 < driver["CPU"] < workers.SPARED_CPUS / 4


GLOO = RuntimeError("[gloo/transport/tcp/pair.cc:537] Read error [127.0.0.1]:14047: Connection reset by peer.")


@pytest.mark.parametrize(
    ("failures", "said"),
    [
        ({0: GLOO}, "one of its workers died"),
        ({0: GLOO, 1: RuntimeError("A worker health check failed.\nWorker info: ...")}, "one of its workers died"),
        ({0: GLOO, 1: ValueError("no space")}, "no space"),
        ({1: ValueError("no space")}, "no space"),
    ],
)
def test_a_group_s_failure_is_that_of_the_worker_it_began_with(failures, said):
    assert said in str(cause(failures))


def test_a_group_goes_on_when_tune_has_decided_and_not_after_its_trial():
    async def story() -> list[bool]:
        members = Members()
        await members.join("a", "place")
        waiting = asyncio.ensure_future(members.allowed("a", 2))
        await members.allow("a", 1)
        await asyncio.sleep(3 * workers.LOOK_SECONDS)
        answers = [waiting.done()]
        await members.allow("a", 2)
        answers.append(await waiting)
        stopped = asyncio.ensure_future(members.allowed("a", 3))
        await asyncio.sleep(0)
        assert await members.leave("a") == "place" and await members.leave("a") is None
        return [*answers, await stopped]

    assert asyncio.run(story()) == [False, True, False]


def test_only_a_trial_that_tune_lets_run_is_allowed_to_go_on(monkeypatch):
    asked = []
    groups = workers.Groups.__new__(workers.Groups)
    groups.told = {}
    groups.members = SimpleNamespace(allow=SimpleNamespace(remote=lambda *args: asked.append(args)))
    running, stopped = (SimpleNamespace(trial_id=name, status=s) for name, s in (("a", "RUNNING"), ("b", "TERMINATED")))
    for trial in (running, stopped):
        groups.on_trial_result(1, [], trial, {"epoch": 4})
    assert asked == []
    groups.on_step_end(1, [running, stopped])
    groups.on_step_end(2, [running, stopped])
    assert asked == [("a", 4)]


def straight(folder: Path, config: str, data: str, url: str) -> None:
    """The same run by two workers without Ray and without a fault."""
    run, dataset = run_from_json(json.loads(config)), load_dataset(data)
    for report in run_recommender(run, dataset, Store(url), attempt="straight", device="cpu"):
        assert report.epoch


def worker_processes() -> list[int]:
    """Workers of the groups that descend from this process."""
    parents, names = {}, {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
            names[int(stat.parent.name)] = (stat.parent / "cmdline").read_text()
        except (FileNotFoundError, ProcessLookupError):
            continue
    found = [os.getpid()]
    for ancestor in found:
        found += [child for child, parent in parents.items() if parent == ancestor]
    return [pid for pid in found if "RayTrainWorker" in names.get(pid, "")]


@pytest.mark.e2e
def test_two_workers_one_of_them_killed_equal_two_that_were_not_and_one(planned, store, folder, tmp_path, monkeypatch):
    """Bit for bit the former, within rounding the latter: there is no dropout."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    plan, run = planned("sasrec", epochs=12, patience=12, dropout=0.0, precision="float32")
    killed = []

    def kill() -> None:
        deadline = time.monotonic() + 300
        while time.monotonic() < deadline:
            saved = store.load_progress("recommender", run.key)
            if saved is not None and saved.epoch >= 3:
                killed.append((max(worker_processes()), saved.epoch))
                os.kill(killed[0][0], signal.SIGKILL)
                return
            time.sleep(0.02)

    killer = threading.Thread(target=kill)
    killer.start()
    output = io.StringIO()
    resources = Resources(workers_per_run=WORLD, cpus_per_run=2)
    ledger = launch(plan, store, resources, console=Console(file=output, width=200))
    killer.join()
    assert ledger.complete and killed and killed[0][1] < 12
    (retried,) = [line for line in output.getvalue().splitlines() if "retrying" in line]
    assert "died (killed, out of memory, or the node was lost)" in retried

    quiet, alone = Store(tmp_path / "quiet"), Store(tmp_path / "alone")
    together(straight, tmp_path / "work", json.dumps(run.config.described()), str(folder), quiet.url)
    list(run_recommender(run.config, load_dataset(folder), alone, attempt="alone", device="cpu"))

    def of(place: Store, name: str) -> bytes:
        return place.read_bytes("recommender", run.key, name)

    def curve(place: Store) -> list[dict]:
        lines = [json.loads(line) for line in of(place, "metrics.jsonl").splitlines()]
        return [{name: value for name, value in line.items() if "seconds" not in name} for line in lines]

    for name in ("model.safetensors", "item_vectors.npy", "ranks_valid.npy", "ranks_test.npy"):
        assert of(store, name) == of(quiet, name), name
    assert curve(store) == curve(quiet)
    assert [line["epoch"] for line in curve(store)] == list(range(1, 13))
    for one, other in zip(curve(alone), curve(store), strict=True):
        assert list(one) == list(other)
        np.testing.assert_allclose(list(other.values()), list(one.values()), rtol=1e-3, atol=1e-3)
    row, single = (place.read_json("recommender", run.key, "row.json") for place in (store, alone))
    assert row["scores"]["test"] == pytest.approx(single["scores"]["test"], abs=0.02)
    assert row["config"] == single["config"] and row["run_key"] == single["run_key"]
    assert (row["provenance"]["workers"], single["provenance"]["workers"]) == (WORLD, 1)
    assert row["provenance"]["attempts"] == 2 and row["provenance"]["threads"] == 1
    artefact, other = store.get("recommender", run.key), alone.get("recommender", run.key)
    assert [path.name for path in artefact.parent.iterdir() if path.is_dir()] == [artefact.name]
    assert {path.name for path in artefact.iterdir()} == {path.name for path in other.iterdir()}
    assert store.load_progress("recommender", run.key) is None


@pytest.mark.fault
@pytest.mark.e2e
def test_a_trial_that_tuning_stops_frees_its_place_for_the_next_group(folder, tmp_path, monkeypatch, capsys):
    """Two CPUs: a group that went on, or a place that was not freed, would keep the next one waiting for good."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    words = ["--dataset", str(folder), "--methods", "sasrec", "--profile", "tiny", "--trials", "3", "--epochs", "9"]
    words += ["--grace", "1", "--workers-per-run", "2", "--cpus-per-run", "2"]
    assert main(Tuning, [*words, "--store", str(tmp_path / "runs"), "--tuned", str(tmp_path / "tuned")]) == 0
    printed = capsys.readouterr().out
    assert "done 3/3, running 0, failed 0" in printed and "retrying" not in printed
    trials = json.loads((tmp_path / "tuned" / "toy" / "sasrec.json").read_text())["trials"]
    assert sorted(len(trial["scores"]) for trial in trials)[0] < 9 and len(trials) == 3
    assert worker_processes() == []
