"""Whole studies through a local Ray, with stages that train nothing: order, sharing, retries, and faults by kill -9."""

import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from fake_stages import diary
from rich.console import Console

from bbqrec.store import Store
from sweeps import launch as launching
from sweeps.launch import Resources, launch

pytestmark = pytest.mark.e2e
HERE = Path(__file__).parent
ROOT = HERE.parents[1]


@pytest.fixture(autouse=True)
def workers(monkeypatch):
    """Workers find the fake stages, and are as quick as they can be."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(HERE), str(ROOT)]))
    monkeypatch.setenv("FAKE_STAGES", json.dumps({"seconds": 0.05}))


def events(store: Store, event: str) -> list[dict]:
    return [entry for entry in diary(store.url) if entry["event"] == event]


def epochs_computed(store: Store) -> Counter:
    """How often each (run, epoch) was computed to its end."""
    return Counter((entry["key"], entry["epoch"]) for entry in events(store, "epoch"))


def wait_for(happened: Callable[[], object], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.02)


def alive(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_a_study_runs_in_order_and_running_it_again_computes_nothing(study, store):
    plan = study().plan(store)
    output = io.StringIO()
    resources = Resources(cpus_per_run=1, max_concurrent=2)
    ledger = launch(plan, store, resources, console=Console(file=output, width=200), stages="fake_stages")

    assert ledger.complete and ledger.errors == {}
    assert set(epochs_computed(store).values()) == {1}
    assert len(events(store, "end")) == len(plan.runs) == 16
    ended = {entry["key"]: entry["time"] for entry in events(store, "end")}
    begun = {entry["key"]: entry["time"] for entry in events(store, "begin")}
    for cell in plan.cells:
        assert ended[cell.quantizer_key] < begun[cell.run_key]
    moments = sorted([(t, 1) for t in begun.values()] + [(t, -1) for t in ended.values()])
    running = [sum(step for _, step in moments[: i + 1]) for i in range(len(moments))]
    assert max(running) <= 2
    assert len({entry["pid"] for entry in events(store, "begin")}) <= 4  # worker processes are used again
    assert {cell["status"] for cell in store.load_json("study/ablations.json")["cells"]} == {"done"}
    assert "done 16/16, running 0, failed 0" in output.getvalue().splitlines()[-1]
    assert not any("test" in line for line in output.getvalue().splitlines())

    began = time.monotonic()
    again = launch(study().plan(store), store, resources, console=Console(file=io.StringIO()), stages="fake_stages")
    assert again.complete and time.monotonic() - began < 2  # not even Ray starts
    assert len(events(store, "begin")) == 16


def test_a_taught_run_comes_after_its_teacher_which_another_cell_shows(study, store):
    """The fake stages insist on what they need."""
    plan = study(methods=("letter", "sasrec")).plan(store)
    console = Console(file=io.StringIO())
    ledger = launch(plan, store, Resources(cpus_per_run=1, max_concurrent=2), console=console, stages="fake_stages")
    assert ledger.complete and ledger.errors == {}
    letter, sasrec = plan.cells
    assert [entry["key"] for entry in events(store, "end")] == [sasrec.run_key, letter.quantizer_key, letter.run_key]


def test_a_killed_worker_is_retried_from_its_checkpoint_and_a_failing_run_is_shown_failed(study, store, monkeypatch):
    assert launching.RETRIES == 2
    monkeypatch.setattr(launching, "RETRIES", 1)  # each retry starts a process, which takes seconds
    plan = study(
        methods=("bbqrec", "bbqrec/s", "bbqrec/no-u", "tiger", "bbqrec/no-id"), overrides={"recommender.epochs": 9}
    ).plan(store)
    cells = {cell.method: cell for cell in plan.cells}
    bad_quantizer, bad_run = cells["bbqrec/no-u"].quantizer_key, cells["tiger"].run_key
    failures = {bad_quantizer: "codes=[7]\nare out of range", bad_run: "loss is nan"}
    diverging = cells["bbqrec/no-id"].run_key
    faults = {"fail": failures, "diverge": {diverging: "it diverged"}}
    monkeypatch.setenv("FAKE_STAGES", json.dumps({"seconds": 0.3, **faults}))
    victim = cells["bbqrec"].run_key
    killed: list[int] = []

    def kill() -> None:
        wait_for(lambda: epochs_computed(store)[victim, 3])
        killed.append(next(e["pid"] for e in events(store, "epoch") if e["key"] == victim))
        os.kill(killed[0], signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    output = io.StringIO()
    ledger = launch(plan, store, Resources(), console=Console(file=output, width=200), stages="fake_stages")
    killer.join()

    begins = Counter(entry["key"] for entry in events(store, "begin"))
    assert begins[victim] == 2 and killed
    computed = epochs_computed(store)
    # An epoch may have been under way, but none whose checkpoint was saved is computed again.
    assert {epoch for key, epoch in computed if key == victim} == set(range(1, 10))
    assert sum(count for (key, _), count in computed.items() if key == victim) <= 10
    assert all(computed[victim, epoch] == 1 for epoch in (1, 2))
    assert "retrying toy bbqrec seed 0 recommender: its process died" in output.getvalue()

    assert begins[bad_quantizer] == begins[bad_run] == 2
    assert begins[diverging] == 1  # it would diverge again
    assert ledger.hopeless == {diverging} and "failed toy bbqrec/no-id seed 0 recommender: it" in output.getvalue()
    found = {cell["method"]: cell for cell in store.load_json("study/ablations.json")["cells"]}
    assert {method: cell["status"] for method, cell in found.items()} == {
        "bbqrec": "done",
        "bbqrec/s": "done",
        "bbqrec/no-u": "failed",
        "tiger": "failed",
        "bbqrec/no-id": "failed",
    }
    assert found["bbqrec/no-id"]["error"] == "it diverged: lower it"
    assert found["tiger"]["error"] == "RuntimeError: loss is nan"
    assert found["bbqrec/no-u"]["error"].startswith("quantizer failed: ")
    assert "are out of range" in found["bbqrec/no-u"]["error"]
    assert cells["bbqrec/no-u"].run_key not in begins
    assert not ledger.complete


def test_after_kill_9_of_the_driver_the_same_command_goes_on(study, store, folder):
    options = {
        "methods": ["bbqrec", "bbqrec/s", "tiger"],
        "profile": "tiny",
        "overrides": {"quantizer.epochs": 4, "recommender.epochs": 12},
    }
    command = [sys.executable, str(HERE / "drive.py"), store.url, str(folder), json.dumps(options)]
    environment = {**os.environ, "FAKE_STAGES": json.dumps({"seconds": 0.25})}
    driver = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for(lambda: any(e["stage"] == "recommender" and e["epoch"] == 3 for e in events(store, "epoch")))
    finally:
        driver.kill()
        driver.wait()
    workers = {entry["pid"] for entry in diary(store.url)}
    wait_for(lambda: not any(alive(pid) for pid in workers), 30)
    statuses = [cell["status"] for cell in store.load_json("study/ablations.json")["cells"]]
    assert "running" in statuses and len(statuses) == 3
    before = epochs_computed(store)
    checkpoints = {
        run.key: saved.epoch
        for run in study(**{**options, "methods": tuple(options["methods"])}).plan(store).missing
        if (saved := store.load_progress(run.stage, run.key))
    }
    assert checkpoints

    again = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert again.returncode == 0, again.stderr
    cells = store.load_json("study/ablations.json")["cells"]
    assert [cell["status"] for cell in cells] == ["done"] * 3
    after = epochs_computed(store)
    expected = {(cell["run_key"], epoch) for cell in cells for epoch in range(1, 13)}
    expected |= {(cell["quantizer_key"], epoch) for cell in cells for epoch in range(1, 5)}
    assert set(after) == expected
    again_computed = {(key, epoch) for key, epoch in after if after[key, epoch] > 1}
    assert all(epoch > checkpoints[key] for key, epoch in again_computed), (checkpoints, again_computed)
    assert sum(after.values()) <= len(expected) + 2 and before
