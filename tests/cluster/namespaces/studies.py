"""A study on the nodes: its command, what its processes wrote to the store, and whether it equals a single node's."""

import re
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from harness import assert_same, wait_for
from nodes import Node
from ray_nodes import RayNodes

from bbqrec.store import Store
from sweeps.study import Plan, Study

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


@dataclass
class Studies:
    """Studies in one store in one bucket. `single` is that of the study on one node, `process` what computes it."""

    cluster: RayNodes
    bucket: str
    folder: Path
    single: Path
    process: subprocess.Popen
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
        """Every run is done and equals that of the single node bit for bit: codes, weights, ranks, scores, curves.

        Returns a copy of the store on this machine.
        """
        assert self.process.wait(timeout=300) == 0, (self.single.parent / "printed.txt").read_text()
        copy = Store(self.copied())
        assert_same(self.plan(methods), copy, Store(self.single))
        return copy

    def copied(self) -> Path:
        """A copy of the store on this machine, as it is now."""
        place = self.folder / f"copy{time.monotonic_ns()}"
        self.cluster.network.s3("s3.get(sys.argv[1], sys.argv[2], recursive=True)", f"{self.bucket}/runs", place)
        return place

    def plan(self, methods: Sequence[str] = METHODS) -> Plan:
        """The runs of the study, none of them done."""
        data = self.single / "data/synthetic"
        study = Study(name="ablations", methods=tuple(methods), datasets=(data,), profile="tiny", overrides=EPOCHS)
        return replace(study.plan(Store(self.single)), done=frozenset())

    def close(self) -> None:
        """Ends what the test left running."""
        for driver in self.drivers:
            if driver.poll() is None:
                driver.kill()
            driver.wait()
