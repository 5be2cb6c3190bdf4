"""Faults of the process that runs the study: killed again and again, and twice the same one at a time."""

import random
import time

import pytest
from harness import wait_for

pytestmark = pytest.mark.fault
KILLS = 10


@pytest.mark.parametrize(("anywhere", "place"), [("local", "local disk"), ("s3", "S3")], indirect=["anywhere"])
@pytest.mark.timeout(900)
def test_a_driver_killed_at_ten_random_points(anywhere, place):
    """While it starts, or a random moment after up to four more epochs and publications; then the command at once."""
    bench, chance = anywhere, random.Random(place)

    def events() -> int:
        return len(bench.events("epoch", "publishing"))

    restarts, delays, busy = [], [], 0
    for _ in range(KILLS):
        ahead, before = chance.randint(0, 4), events()
        restarts.append(time.time())
        driver = bench.start()
        wait_for(lambda: events() >= before + ahead)  # noqa: B023
        time.sleep(chance.uniform(0, 0.6) if ahead else chance.uniform(1, 8))
        assert driver.poll() is None, bench.printed()
        driver.kill()
        driver.wait()
        busy += any(event["time"] > restarts[-1] for event in bench.events("begin"))
    assert busy >= KILLS / 2, f"only {busy} kills while runs were computed"
    restarts.append(time.time())
    bench.start()
    bench.finish()
    moments = [event["time"] for event in bench.events("begin")]
    for since, until in zip(restarts, [*restarts[1:], time.time()], strict=True):
        delays += [moment - since for moment in moments if since < moment < until][:1]
    fault = f"driver killed (-9) at {KILLS} random points, {place}"
    seen = bench.line("done 6/6")
    bench.record(fault, max(delays), seen, injected=KILLS, recovery="with the same command", repeated=2 * KILLS)


def test_two_drivers_on_one_store(bench):
    """Both compute, as neither knows of the other; what is published first counts, and both end with all of it."""
    bench.faults["seconds"] = 0.15
    first = bench.start()
    wait_for(lambda: bench.events("begin"))
    since = time.time()
    bench.start()
    bench.finish()
    assert first.wait(timeout=120) == 0, bench.printed(0)
    assert len({event["pid"] for event in bench.events("begin")}) > 2
    late = [event for event in bench.events("begin") if event["pid"] not in {e["pid"] for e in bench.events()[:2]}]
    seen = bench.line("done 6/6")
    bench.record("two drivers on one store at once", late[0]["time"] - since, seen, repeated=4 * 2 + 5 * 4)
