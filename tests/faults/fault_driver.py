"""A study's driver as a process to be killed. It ends as commands do: status 0, 1 for a failed cell, 2 and a line.

python fault_driver.py --store URL --dataset FOLDER --methods bbqrec tiger --stages faulty_stages
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from rich.console import Console

from bbqrec.store import Store
from sweeps.command import main
from sweeps.command_line import overrides
from sweeps.launch import Resources, launch
from sweeps.study import Study


@dataclass(frozen=True, kw_only=True)
class FaultStudy:
    """A study of the profile tiny, a CPU for each run."""

    store: str
    dataset: Path
    methods: tuple[str, ...]
    set: tuple[str, ...] = ()
    stages: str = "bbqrec.stages"
    cluster: str | None = None

    name: ClassVar[str] = "faults"

    def study(self) -> Study:
        about = {"methods": self.methods, "datasets": (self.dataset,)}
        return Study(name=self.name, profile="tiny", overrides=overrides(self.set), **about)

    def run(self, console: Console, command: str) -> int:
        store = Store(self.store)
        console = Console(width=250)
        # Concurrency is given, as that of a cluster is not limited.
        resources = Resources(cluster=self.cluster, shared_store=True, cpus_per_run=1, max_concurrent=2)
        ledger = launch(self.study().plan(store), store, resources, console=console, stages=self.stages)
        return 0 if ledger.complete else 1


if __name__ == "__main__":
    sys.exit(main(FaultStudy))
