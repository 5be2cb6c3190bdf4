"""Golden files of tables, and a LaTeX that really sets them."""

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

GOLDEN = Path(__file__).parent / "golden"
DOCUMENTS = (
    r"\documentclass{article}",
    r"\documentclass[twocolumn]{article}\usepackage[margin=2cm]{geometry}",
)


def check_golden(name: str, text: str) -> None:
    """Compares with a golden file; BBQREC_UPDATE_GOLDEN=1 writes it anew. Read the difference before you commit it."""
    path = GOLDEN / name
    if os.environ.get("BBQREC_UPDATE_GOLDEN") == "1":
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text(encoding="utf-8"), f"{name} differs from the golden file"


def set_by_latex(folder: Path, document: str, pages: Sequence[str], nasty: Sequence[str] = ()) -> None:
    """Sets the pages; only the nasty ones, which come last, may stick out of the margin."""
    if shutil.which("pdflatex") is None:
        pytest.skip("no pdflatex on this machine (Debian: texlive-latex-base, texlive-latex-recommended, -extra)")
    body = "\n\\clearpage\n".join([*pages, *nasty])
    packages = r"\usepackage{booktabs,graphicx,multirow}"
    source = f"{document}{packages}\n\\begin{{document}}\n{body}\n\\end{{document}}\n"
    (folder / "all.tex").write_text(source, encoding="utf-8")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "all.tex"]
    done = subprocess.run(command, cwd=folder, capture_output=True, timeout=120, check=False)
    said = done.stdout.decode(errors="replace")
    if "not found" in said and ".sty" in said:
        pytest.skip("this LaTeX lacks booktabs, graphicx or multirow (Debian: texlive-latex-recommended, -extra)")
    assert done.returncode == 0, said[-2000:]
    tables = said.split("all.aux", 1)[-1].rsplit(f"[{len(pages) + 1}]", 1)[0]
    assert "Overfull" not in tables and "too large" not in tables, said[-3000:]
    assert "Missing character" not in said
