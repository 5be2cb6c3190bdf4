"""A study on the nodes: its command, what its processes wrote to the store, and whether it equals a single node's."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from harness import assert_same, wait_for
from nodes import ROOT, Node
from ray_nodes import RayNodes

from bbqrec.store import Store
from sweeps.study import Plan, Run, Study

METHODS = ("bbqrec", "bbqrec/s", "bbqrec/no-u", "sasrec")
"""Six runs: two quantizers, of which one is shared by two cells, and four recommenders."""
EPOCHS = {"quantizer.epochs": 3, "recommender.epochs": 2}


def words(store: str | Path, methods: Sequence[str] = METHODS) -> list[str]:
    """Options of the study of the embedded data set, profile tiny."""
    changes = [f"{name}={value}" for name, value in EPOCHS.items()]
    return ["--store", str(store), "--variants", *methods, "--set", *changes]


@dataclass(frozen=True)
class Write:
    """A request that stored an object: by the node at `address`, in this second, `name` within the store."""

    address: str
    time: float
    name: str


class SingleNode:
    """The study without a cluster, computed by a process of this machine meanwhile, a run at a time."""

    def __init__(self, folder: Path) -> None:
        self.store, self._printed = folder / "runs", folder / "printed.txt"
        out = ("--out", folder / "out", "--logs", folder / "logs", "--cpus-per-run", 1, "--max-concurrent", 1)
        command = [sys.executable, ROOT / "sweeps/ablations.py", *words(self.store), *out]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        with self._printed.open("wb") as printed:
            options = {"env": environment, "stdout": printed, "stderr": subprocess.STDOUT}
            self._process = subprocess.Popen([*map(str, command)], **options)

    def runs(self, methods: Sequence[str] = METHODS) -> dict[str, Run]:
        """The runs of the study by their keys."""
        return dict(self._plan(methods).runs)

    def check_same(self, other: Store, methods: Sequence[str] = METHODS) -> None:
        """Every run of the study is in the other store and equal bit for bit: codes, weights, ranks, scores, curves."""
        assert_same(self._plan(methods), other, Store(self.store))

    def _plan(self, methods: Sequence[str]) -> Plan:
        assert self._process.wait(timeout=300) == 0, self._printed.read_text()
        about = {"profile": "tiny", "overrides": EPOCHS, "datasets": (self.store / "data/synthetic",)}
        return Study(name="ablations", methods=tuple(methods), **about).plan(Store(self.store))

    def close(self) -> None:
        """Ends the process."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()


@dataclass
class Studies:
    """Studies in one store in one bucket, and the one that they must equal."""

    cluster: RayNodes
    bucket: str
    folder: Path
    single: "SingleNode"
    drivers: list[subprocess.Popen] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"s3://{self.bucket}/runs"

    def start(self, methods: Sequence[str] = METHODS, **environment: str) -> subprocess.Popen:
        """The command, given on the head."""
        node, name = self.cluster.head, f"{self.bucket}-{len(self.drivers)}"
        self.drivers.append(self.cluster.study(node, name, *words(self.url, methods), **environment))
        return self.drivers[-1]

    def printed(self) -> str:
        """By the last command, without colours."""
        path = self.cluster.head.path(f"/tmp/{self.bucket}-{len(self.drivers) - 1}.txt")
        return re.sub(r"\x1b\[[\d;]*m", "", path.read_text(errors="replace"))

    def finish(self, seconds: float = 180, status: int = 0) -> None:
        """Waits for the last command."""
        found = self.drivers[-1].wait(timeout=seconds)
        assert found == status, f"status {found}:\n{self.printed()}"

    def writes(self, part: str = "", node: Node | None = None) -> list[Write]:
        """What was stored so far, in order, of names with `part` in them."""
        return [w for w in self._writes() if re.search(part, w.name) and (node is None or w.address == node.address)]

    def _writes(self) -> Iterator[Write]:
        pattern = rf'(\S+) .*\[(.+)\] "PUT /{self.bucket}/runs/(\S+) HTTP/1.1" 200 '
        for line in self.cluster.network.requests():
            if found := re.match(pattern, line):
                at = time.mktime(time.strptime(found[2], "%d/%b/%Y %H:%M:%S"))
                yield Write(found[1], at, found[3])

    def wait(self, happened: Callable[[], object], seconds: float = 120) -> object:
        """The first true answer. AssertionError if the last command ends before."""

        def look() -> object:
            found = happened()
            assert found or self.drivers[-1].poll() is None, f"the study ended:\n{self.printed()}"
            return found

        return wait_for(look, seconds)

    def check_same(self, methods: Sequence[str] = METHODS) -> Store:
        """Every run is done and equals that of the single node; returns a copy of the store on this machine."""
        copy = Store(self.copied())
        self.single.check_same(copy, methods)
        return copy

    def copied(self) -> Path:
        """A copy of the store on this machine, as it is now."""
        place = self.folder / f"copy{time.monotonic_ns()}"
        self.cluster.network.s3("s3.get(sys.argv[1], sys.argv[2], recursive=True)", f"{self.bucket}/runs", place)
        return place

    def close(self) -> None:
        """Ends what the test left running."""
        for driver in self.drivers:
            if driver.poll() is None:
                driver.kill()
            driver.wait()
