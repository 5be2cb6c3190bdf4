"""What the fault tests share: drivers to hurt, the diary of their workers, comparison, report."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from fault_driver import FaultStudy

from bbqrec.store import Store
from sweeps.study import Plan

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
METHODS = ("bbqrec", "bbqrec/s", "tiger", "sasrec")
"""Six runs: two quantizers, of which one is shared by two cells, and four recommenders."""
EPOCHS = {"quantizer": 4, "recommender": 5}
SAME = {
    "quantizer": ("codes.npy", "vectors.npy", "codebooks.npy", "model.safetensors"),
    "recommender": ("ranks_valid.npy", "ranks_test.npy", "model.safetensors"),
}
"""What must be equal bit for bit; scores and the metrics of every epoch are compared, too."""


def wait_for(happened: Callable[[], Any], seconds: float = 120) -> Any:
    """The first true answer. AssertionError if there is none in time."""
    deadline = time.monotonic() + seconds
    while not (found := happened()):
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.02)
    return found


def alive(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False


@dataclass
class Entry:
    """A row of the report. `seconds` from the fault, or from the start of the next command, to work that goes on."""

    fault: str
    injected: int
    runs: int
    lost: int
    equal: bool
    seconds: float
    recovery: str
    seen: str


REPORT: list[Entry] = []


@dataclass
class Bench:
    """A study in a store, its diary, and the drivers that run it."""

    dataset: Path
    folder: Path
    url: str
    quiet: str
    faults: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)
    drivers: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.diary.mkdir(parents=True)
        self.faults = {"diary": str(self.diary), "seconds": 0.3, "publishing": 0.2, **self.faults}

    @property
    def diary(self) -> Path:
        return self.folder / "diary"

    @property
    def epochs(self) -> tuple[str, ...]:
        return tuple(f"{stage}.epochs={count}" for stage, count in EPOCHS.items())

    def plan(self, url: str | None = None) -> Plan:
        """As the driver makes it."""
        options = FaultStudy(store=url or self.url, dataset=self.dataset, methods=METHODS, set=self.epochs)
        return options.study().plan(Store(options.store))

    def key(self, stage: str, method: str) -> str:
        cell = next(cell for cell in self.plan(self.quiet).cells if cell.method == method)
        return str(cell.quantizer_key if stage == "quantizer" else cell.run_key)

    def environ(self) -> dict[str, str]:
        """Of drivers and, in a cluster, of nodes."""
        paths = os.pathsep.join([str(HERE), str(ROOT)])
        return {**os.environ, "PYTHONPATH": paths, "FAULTS": json.dumps(self.faults), **self.environment}

    def start(self, stages: str = "faulty_stages", cluster: str | None = None) -> subprocess.Popen[bytes]:
        """Starts the command of the study; what it prints goes to a file."""
        words = ["--store", self.url, "--dataset", str(self.dataset), "--stages", stages, "--methods", *METHODS]
        words += ["--set", *self.epochs, *(["--cluster", cluster] if cluster else [])]
        command = [sys.executable, str(HERE / "fault_driver.py"), *words]
        with self._output(len(self.drivers)).open("wb") as output:
            driver = subprocess.Popen(command, env=self.environ(), stdout=output, stderr=subprocess.STDOUT)
        self.drivers.append(driver)
        return driver

    def _output(self, number: int) -> Path:
        return self.folder / f"driver{number}.txt"

    def printed(self, number: int = -1) -> str:
        """What a driver has printed so far."""
        return self._output(range(len(self.drivers))[number]).read_text(errors="replace")

    def line(self, part: str) -> str:
        """The last printed line that contains `part`, with the store's and the data's place made general."""
        lines = [line for n in range(len(self.drivers)) for line in self.printed(n).splitlines() if part in line]
        assert lines, f"nobody was told {part!r}:\n{self.printed()}"
        general = lines[-1].strip().replace(self.url, "runs").replace(str(self.folder), "folder")
        return re.sub(r"http://[\w.:]+/bucket-\w+", "http://s3/bucket", general)

    def finish(self, seconds: float = 240, status: int = 0) -> None:
        """Waits for the last driver."""
        found = self.drivers[-1].wait(timeout=seconds)
        assert found == status, f"status {found}:\n{self.printed()}"

    def close(self) -> None:
        """Ends what the test left running."""
        for driver in self.drivers:
            if driver.poll() is None:
                driver.kill()
            driver.wait()
        wait_for(lambda: not any(alive(pid) for pid in self.workers()), 90)

    def events(self, *kinds: str, **wanted: Any) -> list[dict[str, Any]]:
        """Of the diary, in order."""
        found = [json.loads(path.read_text()) for path in sorted(self.diary.glob("*.json"))]
        return [e for e in found if (not kinds or e["event"] in kinds) and wanted.items() <= e.items()]

    def workers(self) -> set[int]:
        return {event["pid"] for event in self.events()}

    def seen(self, kind: str, key: str, **wanted: Any) -> dict[str, Any]:
        """Waits for an event of a run, and returns it."""
        return wait_for(lambda: self.events(kind, key=key, **wanted))[0]

    def kill(self, pid: int, number: int = signal.SIGKILL) -> float:
        """Sends the signal, and returns the time."""
        os.kill(pid, number)
        return time.time()

    def again(self, key: str, since: float, but: int | None = None) -> float:
        """Seconds from `since` to the next epoch or publication of a run by another process than `but`."""
        found = [e["time"] for e in self.events("epoch", "publishing", "published", key=key) if e["pid"] != but]
        return min(moment for moment in found if moment > since) - since

    def check_whole(self, repeated: int, damaged: Collection[str] = ()) -> tuple[int, int]:
        """Every run is done and was published once, unless it was `damaged`; all results are those of the quiet study.

        No more than so many epochs were `repeated`. Returns the number of runs and of those lost (0, or this fails).
        """
        plan, store, quiet = self.plan(), Store(self.url), Store(self.quiet)
        lost = [run.name for run in plan.runs.values() if not store.has(run.stage, run.key)]
        assert not lost and {cell["status"] for cell in store.load_json("study/faults.json")["cells"]} == {"done"}
        won = Counter(event["key"] for event in self.events("published", won=True))
        assert all(count == 1 + (key in damaged) for key, count in won.items()), won
        computed = Counter((event["key"], event["epoch"]) for event in self.events("epoch"))
        expected = {(run.key, epoch + 1) for run in plan.runs.values() for epoch in range(EPOCHS[run.stage])}
        assert set(computed) == expected
        assert computed.total() - len(expected) <= repeated, computed
        assert_same(plan, store, quiet)
        return len(plan.runs), len(lost)

    def record(
        self,
        fault: str,
        seconds: float,
        seen: str,
        *,
        injected: int = 1,
        recovery: str = "by itself",
        repeated: int = 2,
        damaged: Collection[str] = (),
    ) -> None:
        """Checks that nothing is lost and adds a row to the report. Two runs were at hand when the fault came."""
        runs, lost = self.check_whole(repeated, damaged)
        REPORT.append(Entry(fault, injected, runs, lost, True, round(seconds, 1), recovery, seen))


def assert_same(plan: Plan, store: Store, quiet: Store) -> None:
    """The same bytes, scores and curves as those of the quiet study."""
    for run in plan.runs.values():
        for name in SAME[run.stage]:
            ours = store.read_bytes(run.stage, run.key, name)
            assert ours == quiet.read_bytes(run.stage, run.key, name), f"{run.name}: {name}"
        rows = [s.read_json(run.stage, run.key, "row.json") for s in (store, quiet)]
        for field_ in ("scores", "collisions", "selected_by"):
            assert rows[0].get(field_) == rows[1].get(field_), f"{run.name}: {field_}"
        assert _curve(store, run.stage, run.key) == _curve(quiet, run.stage, run.key), run.name


def _curve(store: Store, stage: str, key: str) -> list[dict[str, float]]:
    lines = store.read_bytes(stage, key, "metrics.jsonl").decode().splitlines()
    return [{k: v for k, v in json.loads(line).items() if "seconds" not in k} for line in lines]


def write_report(entries: Iterable[Entry], out: Path) -> None:
    """faults.json and the same as a table, faults.md."""
    from fault_report import table

    out.mkdir(parents=True, exist_ok=True)
    found = [asdict(entry) for entry in entries]
    (out / "faults.json").write_text(json.dumps(found, indent=1) + "\n")
    (out / "faults.md").write_text(table(found))
