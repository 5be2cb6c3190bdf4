"""The committed results: every report is what its own rows make of it, byte for byte, and its scores are possible."""

from importlib import metadata
from pathlib import Path

import pytest

from analysis.lint import lint
from analysis.tuning import load_tuned, tuning_latex, tuning_markdown
from analysis.whole_report import write_whole

RESULTS = Path(__file__).resolve().parents[1] / "results"
REPORTS = sorted(path.parent for path in RESULTS.glob("*/report.tex"))
DRAWN = (".png", ".pdf")


def pinned(package: str) -> bool:
    """Whether this is the version that the results were drawn with: others draw other bytes."""
    constraints = (RESULTS.parent / "constraints.txt").read_text().lower().splitlines()
    return f"{package}=={metadata.version(package)}" in constraints


@pytest.mark.parametrize("report", REPORTS, ids=lambda path: path.name)
def test_a_report_is_rebuilt_from_its_rows(tmp_path, report):
    written = write_whole(report, tmp_path)
    compared = [path for path in written if path.suffix not in DRAWN or pinned("matplotlib")]
    assert len(compared) > 10
    there = {path: report / path.relative_to(tmp_path) for path in compared}
    absent = [str(path) for path in there.values() if not path.exists()]
    different = [str(old) for new, old in there.items() if old.exists() and old.read_bytes() != new.read_bytes()]
    assert (absent, different) == ([], []), f"python -m analysis report --store {report} --out {report}"


@pytest.mark.parametrize("rows", sorted(RESULTS.glob("**/rows.csv")), ids=lambda path: str(path.relative_to(RESULTS)))
def test_the_scores_are_possible(rows):
    assert lint(rows) == []


@pytest.mark.parametrize("folder", sorted(RESULTS.glob("*/tuned")), ids=lambda path: path.parent.name)
def test_the_table_of_tuning_is_that_of_the_tuned_configs(folder):
    found = load_tuned(folder)
    assert (folder.parent / "tuning.md").read_text(encoding="utf-8") == tuning_markdown(found)
    assert (folder.parent / "tuning.tex").read_text(encoding="utf-8") == tuning_latex(found)
