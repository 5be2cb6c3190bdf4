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
    """After so many events each, and a random time more; then the same command at once."""
    bench, chance = anywhere, random.Random(place)
    # The last of the 28 epochs and 6 publications are left for after the last kill.
    points = sorted(chance.sample(range(28), KILLS))
    restarts, delays = [], []
    for point in points:
        restarts.append(time.time())
        driver = bench.start()
        lifetime = chance.uniform(1, 12)  # of those for which enough has happened already
        wait_for(lambda: len(bench.events("epoch", "publishing")) >= point or driver.poll() is not None, 120)  # noqa: B023
        if point <= 1 or lifetime < 6:
            time.sleep(max(0.0, restarts[-1] + lifetime - time.time()))
        else:
            time.sleep(chance.uniform(0, 0.6))
        assert driver.poll() is None, bench.printed()
        driver.kill()
        driver.wait()
    restarts.append(time.time())
    bench.start()
    bench.finish()
    moments = [event["time"] for event in bench.events("begin")]
    for since, until in zip(restarts, [*restarts[1:], time.time()], strict=True):
        delays += [moment - since for moment in moments if since < moment < until][:1]
    print(f"kills after {points} events; delays {delays}")
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
