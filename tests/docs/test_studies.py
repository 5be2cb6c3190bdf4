"""docs/studies.md as a newcomer would use it: its files in an empty folder, its commands one after the other."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from bbqrec.store import Store

DOCS = Path(__file__).resolve().parents[2] / "docs"
TEXT = (DOCS / "studies.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", TEXT, flags=re.S | re.M)


def test_the_study_file_is_shown_whole():
    assert (DOCS / "examples" / "my_study.py").read_text() in blocks("python")


@pytest.mark.e2e
@pytest.mark.slow
def test_own_data_and_own_study_from_nothing(tmp_path):
    for file in (DOCS / "examples").glob("*.py"):
        (tmp_path / file.name).write_text(file.read_text())
    installed = tmp_path / "bin"
    installed.mkdir()
    for name, program in (("python", ""), ("bbqrec", " -c 'from bbqrec.cli import main; main()'")):
        (installed / name).write_text(f'#!/bin/sh\nexec {sys.executable}{program} "$@"\n')
        (installed / name).chmod(0o755)
    paths = {"PATH": f"{installed}:{os.environ['PATH']}", "PYTHONPATH": str(DOCS.parent)}
    said = []
    for command in blocks("bash")[0].splitlines():
        environment = {**os.environ, **paths, "COLUMNS": "150"}
        done = subprocess.run(
            ["sh", "-c", command], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        said.append(done.stdout)
    planned, first, second = said[2:]
    assert "4 cells" in planned and "to compute: no past run on this data tells of 5 of the 5 runs" in planned
    assert "| Shop    | SASRec " in first and "wider layers" in first
    assert re.search(r"both *│ *10 │ *4 │ *5 │ *5 ", second), "the second seed alone is computed"
    rows = pd.read_csv(tmp_path / "out" / "my-study" / "rows.csv")
    assert list(rows["status"]) == ["done"] * 8 and rows["run_key"].nunique() == 8
    assert len(Store(tmp_path / "runs").keys("quantizer")) == 2, "three variants share one for each seed"
    logs = list((tmp_path / "out" / "tensorboard" / "my-study").glob("*/events.out.tfevents.*"))
    assert len(logs) == 10, "a folder for every run"
