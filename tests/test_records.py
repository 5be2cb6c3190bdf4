"""What a run counts of itself over its attempts."""

import json

import pytest
import torch

from bbqrec import records
from bbqrec.records import RunLog

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)


@pytest.fixture
def clock(monkeypatch):
    """A clock that only the test moves."""
    now = [100.0]
    monkeypatch.setattr(records.time, "perf_counter", lambda: now[0])
    return now


def test_attempts_add_up_and_what_left_no_checkpoint_does_not_count(clock, monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    first = RunLog.begin(CPU, {})
    clock[0] += 10.0
    first.work(4.0)
    checkpoint = first.pack()
    clock[0] += 50.0  # then it is killed
    second = RunLog.begin(CPU, {})
    second.resume(checkpoint)
    clock[0] += 5.0
    second.work(2.0)
    costs = second.costs()
    assert {name: costs[name] for name in ("seconds", "core_seconds", "gpu_seconds", "wall_seconds")} == {
        "seconds": 6.0,
        "core_seconds": 18.0,
        "gpu_seconds": 0.0,
        "wall_seconds": 15.0,
    }
    assert second.provenance["attempts"] == 2 and second.provenance["started"] == first.started


@pytest.mark.parametrize(("given", "gpus"), [({}, 1.0), ({"gpus": 0.25}, 0.25), ({"gpus": 2}, 2.0)])
def test_on_a_gpu_its_share_is_counted(monkeypatch, given, gpus):
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda device: None)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 77)
    log = RunLog.begin(GPU, given)
    log.work(8.0)
    assert (log.costs()["gpu_seconds"], log.costs()["core_seconds"]) == (8.0 * gpus, 0.0)
    assert log.costs()["peak_gpu_memory_bytes"] == 77


def test_the_peak_is_that_of_the_worst_attempt(monkeypatch):
    sizes = iter([900, 200])
    monkeypatch.setattr(records.origin, "peak_memory_bytes", lambda: next(sizes))
    first, second = RunLog.begin(CPU, {}), RunLog.begin(CPU, {})
    checkpoint = first.pack()
    assert json.loads(checkpoint)["peak_memory_bytes"] == 900
    second.resume(checkpoint)
    assert second.costs()["peak_memory_bytes"] == 900


def test_a_checkpoint_of_an_older_version_goes_on(clock):
    older = {"started": "2026-01-02T03:04:05+00:00", "seconds": 7.0, "metrics": [{"epoch": 1}], "sources": [{}]}
    log = RunLog.begin(CPU, {})
    log.resume(json.dumps(older).encode())
    clock[0] += 1.0
    assert (log.costs()["seconds"], log.costs()["wall_seconds"]) == (7.0, 8.0)
    assert log.started == older["started"] and log.metrics == [{"epoch": 1}] and len(log.sources) == 2
