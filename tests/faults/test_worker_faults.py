"""Faults of the process that computes a run: killed, out of memory, an exception, a loss that is no number."""

import re
import time

import pytest
from faulty_stages import HOG_BYTES
from ray._private.utils import get_system_memory, get_used_memory

pytestmark = pytest.mark.fault


@pytest.mark.parametrize(
    ("stage", "method", "event", "wanted", "fault"),
    [
        ("quantizer", "bbqrec", "epoch", {"epoch": 2}, "worker killed (-9) in stage 1"),
        ("recommender", "bbqrec", "epoch", {"epoch": 3}, "worker killed (-9) in stage 2"),
        ("recommender", "tiger", "publishing", {}, "worker killed (-9) while it publishes"),
    ],
    ids=["stage1", "stage2", "publish"],
)
def test_a_killed_worker_is_replaced(bench, stage, method, event, wanted, fault):
    bench.faults |= {"seconds": 0.6, "publishing": 1.0}
    key = bench.key(stage, method)
    bench.start()
    struck = bench.seen(event, key, **wanted)
    since = bench.kill(struck["pid"])
    bench.finish()
    assert len(bench.events("begin", key=key)) == 2 and not bench.events("end", key=key, pid=struck["pid"])
    seen = bench.line("retrying toy")
    assert "its process died" in seen
    bench.record(fault, bench.again(key, since, struck["pid"]), seen)


def test_a_trial_that_takes_all_memory_is_killed_and_retried(bench):
    """Ray's own watch over memory, with a threshold that is reached before the machine is in trouble."""
    used, total = get_used_memory(), get_system_memory()
    if total - used < 1.5 * HOG_BYTES:
        pytest.skip(f"needs {1.5 * HOG_BYTES / 2**30:.0f} GiB of free memory")
    bench.environment["RAY_memory_usage_threshold"] = f"{(used + HOG_BYTES / 2) / total:.4f}"
    key = bench.key("recommender", "tiger")
    bench.faults["strike"] = {key: [3, "memory"]}
    bench.start()
    struck = bench.seen("strike", key)
    bench.finish()
    seen = bench.line("retrying toy tiger seed 0 recommender")
    assert "low on memory" in seen
    bench.record("a trial takes all memory", bench.again(key, struck["time"], struck["pid"]), seen)


def test_an_exception_is_retried_and_a_loss_that_is_no_number_is_named(bench):
    raising, diverging = bench.key("recommender", "bbqrec"), bench.key("quantizer", "tiger")
    bench.faults["strike"] = {raising: [3, "raise"], diverging: [2, "nan"]}
    bench.start()
    bench.finish(status=1)
    raised = bench.events("strike", key=raising)[0]
    retried = bench.line("retrying toy bbqrec seed 0 recommender")
    assert "a fault in the third layer of cables" in retried
    diverged = bench.line("failed toy tiger seed 0 quantizer")
    assert re.search(r"diverged with .*learning_rate=.*: loss/\w+ is nan at epoch 2, step 0", diverged), diverged
    assert len(bench.events("begin", key=diverging)) == 1  # it would diverge again
    since = time.time()
    bench.start()
    bench.finish()
    bench.record("exception in a trial", bench.again(raising, raised["time"]), retried)
    seconds = bench.again(diverging, since)
    bench.record("a loss that is no number", seconds, diverged, recovery="with the same command")
