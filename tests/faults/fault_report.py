"""The table of docs/faults.md, from the faults.json that the suite writes: python tests/faults/fault_report.py FILE."""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

DOC = Path(__file__).parents[2] / "docs" / "faults.md"
BEGIN, END = "<!-- measured -->\n", "<!-- /measured -->\n"


def table(entries: Sequence[Mapping[str, Any]]) -> str:
    """A row per fault, and a sum below it."""
    lines = [
        "| fault | injected | runs lost | equal to a quiet study | goes on | seconds | what a user sees |",
        "|:------|---------:|----------:|:-----------------------|:--------|--------:|:-----------------|",
    ]
    for e in entries:
        equal = "bit for bit" if e["equal"] else "-"
        cells = (
            e["fault"],
            e["injected"],
            f"{e['lost']} of {e['runs']}",
            equal,
            e["recovery"],
            e["seconds"],
            e["seen"],
        )
        lines.append("| " + " | ".join(str(cell).replace("|", r"\|") for cell in cells) + " |")
    injected, lost = (sum(e[name] for e in entries) for name in ("injected", "lost"))
    return "\n".join(lines) + f"\n\nFaults injected: {injected}; runs lost: {lost}.\n"


def filled(document: str, entries: Sequence[Mapping[str, Any]]) -> str:
    """The document with this table between its marks."""
    before, rest = document.split(BEGIN)
    return before + BEGIN + table(entries) + END + rest.split(END)[1]


if __name__ == "__main__":
    measured = Path(sys.argv[1]).read_text()
    DOC.with_suffix(".json").write_text(measured)
    DOC.write_text(filled(DOC.read_text(), json.loads(measured)))
