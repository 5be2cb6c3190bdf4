"""Faults of the place where results lie: full, out of reach, damaged."""

import contextlib
import subprocess
import time
from pathlib import Path

import pytest
from faulty_stages import damage

from bbqrec.store import Store

pytestmark = pytest.mark.fault
OUTAGE = 30.0


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 16 MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "none", str(disk)], capture_output=True)
    if mounted.returncode:
        pytest.skip("may not mount a small file system (root may)")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


def test_a_full_disk_stops_the_study_and_space_lets_it_go_on(bench, small_disk):
    bench.url = str(small_disk / "runs")
    bench.start()
    bench.seen("published", bench.key("recommender", "sasrec"))
    bench.seen("epoch", bench.key("quantizer", "bbqrec"))
    ballast = Path(small_disk, "ballast")
    with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(b"x" * 4096)
    bench.finish(status=2)
    seen = bench.line("No space left on device")
    assert "free some space" in seen
    published = {event["key"] for event in bench.events("published", won=True)}
    ballast.unlink()
    since = time.time()
    bench.start()
    bench.finish()
    begun = {event["key"] for event in bench.events("begin") if event["time"] > since}
    assert begun and not begun & published
    again = min(event["time"] for event in bench.events("epoch") if event["time"] > since) - since
    bench.record("disk of the store full", again, seen, recovery="with the same command")


def test_a_store_out_of_reach_for_half_a_minute(on_s3, moto):
    """When a run has just ended, so that both the driver and a worker need it."""
    bench = on_s3
    bench.faults["ending"] = 1.5
    bench.start()
    bench.seen("end", bench.key("recommender", "sasrec"))
    moto.stop()
    cut = time.time()
    time.sleep(OUTAGE)
    moto.start()
    back = time.time()
    bench.finish()
    assert not [e for e in bench.events("begin", "epoch", "published") if cut + 2 < e["time"] < back]
    assert "retrying" not in bench.printed() and len(bench.events("begin")) == 6
    seconds = min(event["time"] for event in bench.events("epoch") if event["time"] > back) - back
    bench.record(f"store (S3) out of reach for {OUTAGE:.0f} s", seconds, bench.line("trying again"), repeated=0)


def test_damaged_artefacts_are_computed_again(bench):
    """A quantizer between its end and the run that reads it; a result of a finished study."""
    reader, quantizer = bench.key("recommender", "bbqrec"), bench.key("quantizer", "bbqrec")
    bench.faults["strike"] = {reader: [0, "damage"]}
    bench.start()
    bench.finish()
    struck = bench.events("strike", key=reader)[0]
    mended = bench.events("published", won=True, key=reader)[0]
    said = bench.line("damaged or removed")
    assert f"quantizer {quantizer} is not in store" in said
    result = bench.key("recommender", "tiger")
    damage(Store(bench.url), "recommender", result, "row.json")
    since = time.time()
    bench.start()
    bench.finish()
    again = bench.again(result, since)
    shown = bench.line("damaged artefact")
    about = {"repeated": 4 + 4 + 5, "damaged": (quantizer, result)}
    bench.record("quantizer damaged before it is read", mended["time"] - struck["time"], said, **about)
    bench.record("result of a finished study damaged", again, shown, recovery="with the same command", **about)
