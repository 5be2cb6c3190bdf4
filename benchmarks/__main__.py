"""The command `python -m benchmarks`: measures the rows asked for and prints their table.

python -m benchmarks --dataset data/toys --out benchmarks/latest.json
"""

import json
import os
import platform
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import torch
import tyro
from rich import box
from rich.console import Console
from rich.table import Table

from bbqrec.errors import InputError, require_known
from bbqrec.native import keep_freed_memory
from bbqrec.provenance import source_state
from benchmarks import dispatch, memory, quantizer, report, sasrec, scale, scaling, similarity, tiger
from benchmarks.inputs import Inputs
from benchmarks.measure import Limit, Row

ROWS: Mapping[str, Callable[[Inputs, int], Iterator[Row | Limit]]] = {
    "tiger-training": tiger.training,
    "tiger-decoding": tiger.decoding,
    "similarity-layer": similarity.layer,
    "similarity-training": similarity.training,
    "composite-decoding": similarity.decoding,
    "quantizer-step": quantizer.step,
    "club": quantizer.bound,
    "sasrec": sasrec.recbole,
    "dispatch": dispatch.dispatch,
    "memory": memory.paper,
    "table": memory.table,
    "report": report.large,
    "scale": scale.catalogues,
    "scaling": scaling.scaling,
}


@dataclass(frozen=True, kw_only=True)
class Benchmarks:
    """Measure our speed against peers and plain references, in turns within one run; one thread each.

    Example: python -m benchmarks --dataset data/toys --rows tiger-training club
    """

    dataset: Path
    """Folder written by `bbqrec prepare`, with text and image features."""
    rows: Annotated[tuple[str, ...], tyro.conf.arg(metavar="[ROW ...]")] = tuple(ROWS)
    """What to measure."""
    rounds: int = 5
    """Turns of each contender; a first one warms up and does not count."""
    out: Path | None = None
    """JSON file of the result."""

    def run(self) -> None:
        for name in self.rows:
            require_known("row", name, ROWS)
        if self.rounds < 1:
            raise InputError(f"--rounds {self.rounds} measures nothing", "give 1 or more")
        inputs = Inputs(self.dataset)
        dataset = inputs.dataset
        lacking = [name for name in ("text", "image") if name not in dataset.features]
        if lacking:
            raise InputError(f"data set {dataset.name} has no {' or '.join(lacking)}", "choose one with both")
        torch.set_num_threads(1)
        keep_freed_memory()  # as `bbqrec train` does
        about = machine() | {"dataset": dataset.name, "rounds": self.rounds}
        measured: list[Row | Limit] = []
        for name in self.rows:
            for row in ROWS[name](inputs, self.rounds):
                measured.append(row)
                print(" ".join(filter(None, _cells(row))), file=sys.stderr, flush=True)
        Console(width=240).print(table(measured))
        if self.out is not None:
            self.out.parent.mkdir(parents=True, exist_ok=True)
            self.out.write_text(
                json.dumps({"about": about, "rows": [asdict(row) for row in measured]}, indent=1) + "\n"
            )


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    cpu = next((line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo") if "model name" in line), "")
    return {
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "cpu": cpu or platform.processor(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "commit": source_state(),
    }


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines() if Path(path).exists() else []


def table(rows: list[Row | Limit]) -> Table:
    """A line per comparison; rates are per CPU second."""
    shown = Table(box=box.MARKDOWN)
    for title in ("row", "ours", "rate", "against", "rate", "ratio", "over the rounds", "target", "", "note"):
        shown.add_column(title)
    for row in rows:
        shown.add_row(*_cells(row))
    return shown


def _cells(row: Row | Limit) -> tuple[str, ...]:
    met = "met" if row.met else "missed"
    if isinstance(row, Limit):
        value, target = f"{row.value:.2f} {row.unit}", f"<= {row.at_most:g} {row.unit}"
        return row.name, "ours", value, "", "", "", "", target, met, row.note
    ours, theirs = f"{row.ours_per_second:.4g} {row.unit}", f"{row.against_per_second:.4g}"
    spread = f"{row.low:.2f}-{row.high:.2f}"
    return row.name, row.ours, ours, row.against, theirs, f"{row.ratio:.2f}", spread, row.target, met, row.note


def main() -> int:
    """Bad input ends in one line on stderr and exit status 2."""
    try:
        tyro.cli(Benchmarks).run()
    except InputError as error:
        print("error:", " ".join(str(error).split()), file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
