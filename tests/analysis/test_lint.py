"""What a lint of published tables finds: the paper's known errata, planted faults of every kind, nothing else."""

import pandas as pd
import pytest

from analysis.__main__ import main
from analysis.lint import IMPOSSIBLE, IMPROVEMENT, lint
from analysis.paper import FILE
from analysis.rows import METRICS, SPLITS, export_rows
from bbqrec.errors import InputError
from bbqrec.metrics import scores

SOUND = {"R@5": 0.10, "R@10": 0.15, "N@5": 0.07, "N@10": 0.086}


def table(tmp_path, *extra, **changes):
    """A table of one method on one data set, with some scores changed and lines added."""
    lines = [("t", "toys", metric, "A", value) for metric, value in (SOUND | changes).items()]
    path = tmp_path / "table.csv"
    names = ["table", "dataset", "metric", "method", "value"]
    pd.DataFrame([*lines, *extra], columns=names).to_csv(path, index=False)
    return path


def test_the_known_errata_of_the_paper_are_found():
    found = {finding.where: finding.what for finding in lint(FILE)}
    assert found["table2 Sports NOVA-BERT"] == found["table2 Clothing NOVA-BERT"] == IMPOSSIBLE
    assert found["table3 Sports w/o U"] == IMPOSSIBLE
    assert "0.0589 in table2, 0.0589 in table3, 0.0598 in table4" in found["Clothing R@10 BBQRec"]
    assert found[f"table2 Clothing N@5 {IMPROVEMENT}"].endswith(
        "over the best baseline (LETTER) it is +8.80 %, it is over MISSRec"
    )
    assert "169,597 interactions of 19,412 users give 8.74" in found["table1 Toys"]
    assert "items less distinct IDs" in found["table5 Clothing L=3 BBQRec"]
    assert len(found) == 8, "with Toys w/o MIM, which is impossible by a hair, and nothing else"


def test_a_sound_table_has_no_findings(tmp_path):
    assert lint(table(tmp_path)) == []


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"R@10": 1.2}, "not in [0, 1]"),
        ({"N@5": 0.12}, "N@5 0.1200 is above R@5 0.1000"),
        ({"N@5": 0.02}, "N@5 0.0200 is below R@5/log2(6) = 0.0387"),
        ({"R@5": 0.16}, "R@5 0.1600 is above R@10 0.1500"),
        ({"N@10": 0.06}, "N@5 0.0700 is above N@10 0.0600"),
        ({"N@10": 0.1}, IMPOSSIBLE),
        ({"N@10": 0.075}, IMPOSSIBLE),
    ],
)
def test_planted_faults_are_found(tmp_path, changes, said):
    assert any(said in finding.what for finding in lint(table(tmp_path, **changes)))


def test_a_cell_that_disagrees_with_itself_and_an_improvement_over_the_wrong_baseline(tmp_path):
    extra = [
        ("u", "toys", "R@5", "A", 0.11),
        ("t", "toys", "R@5", "B", 0.08),
        ("t", "toys", "R@5", "BBQRec", 0.12),
        ("t", "toys", "R@5", IMPROVEMENT, 50.0),
    ]
    found = [str(finding) for finding in lint(table(tmp_path, *extra))]
    assert found == [
        "toys R@5 A: has 0.1000 in t, 0.1100 in u",
        f"t toys R@5 {IMPROVEMENT}: prints +50.00 %, over the best baseline (A) it is +20.00 %, it is over B",
    ]


def test_our_rows(tmp_path, make_rows, capsys):
    rows = make_rows(("toys", "beauty"))
    for index in rows.index:
        found = scores((pd.Series(range(200)) * (index + 7) % 37 + 1).to_numpy())
        if rows.loc[index, "run_key"] in list(rows["run_key"][:index]):
            first = rows["run_key"].tolist().index(rows.loc[index, "run_key"])
            found = {metric: rows.loc[first, f"test/{metric}"] for metric in METRICS}
        for split in SPLITS:
            rows.loc[index, [f"{split}/{metric}" for metric in METRICS]] = [found[metric] for metric in METRICS]
    path = export_rows(rows, tmp_path / "rows.csv")
    assert main(["lint", str(path)]) == 0 and capsys.readouterr().out == ""
    rows.loc[rows["method"] == "bbqrec/s", "test/ndcg@10"] += 0.1
    rows.loc[(rows["method"] == "bbqrec/no-image") & (rows["dataset"] == "beauty"), "valid/recall@5"] += 1e-6
    assert main(["lint", str(export_rows(rows, path))]) == 1
    printed = capsys.readouterr().out
    assert "toys bbqrec/s seed 0 (test): " in printed and "beauty bbqrec/s seed 0 (test): " in printed
    assert "run beauty.bbqrec.0: has other scores as bbqrec and as bbqrec/no-image" in printed


@pytest.mark.parametrize("text", ["", "a,b\n1,2\n", "table,dataset,metric,method,value\nt,d,R@5,A,much\n"])
def test_a_file_that_is_no_table_is_refused(tmp_path, text):
    (tmp_path / "x.csv").write_text(text)
    with pytest.raises(InputError):
        lint(tmp_path / "x.csv")
