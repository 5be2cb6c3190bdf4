"""The paper's numbers as shipped: complete, self-consistent where the paper is, and beside ours."""

import pytest
from rendered import check_golden

from analysis.baselines import TABLE_2
from analysis.labels import METHOD_LABELS
from analysis.paper import IMPOSSIBLE, beside, contradictions, known, paper_entry, paper_results
from analysis.tables import TABLE_3, TABLE_4

DATASETS = ("beauty", "sports", "clothing", "toys")
PRINTED = {
    "beauty": (8.67, 7.90, 7.06, 6.38),
    "sports": (7.28, 8.58, 6.50, 7.51),
    "clothing": (11.36, 10.51, 10.56, 9.80),
    "toys": (12.04, 9.25, 10.53, 9.44),
}
"""The last column of the paper's Table 2: improvements in percent at R@5, R@10, N@5, N@10."""


@pytest.mark.parametrize(("spec", "count"), [(TABLE_2, 176), (TABLE_3, 64), (TABLE_4, 48)])
def test_every_cell_of_a_table_of_scores_is_there(spec, count):
    found = paper_results(spec.name)
    metrics = ("R@5", "R@10", "N@5", "N@10")
    assert len(found) == count
    assert set(found) == {(d, m, METHOD_LABELS[x].plain) for d in DATASETS for m in metrics for x in spec.methods}


def test_every_cell_of_the_other_tables_is_there():
    assert len(paper_results("table5")) == 2 * 3 * 3 and len(paper_results("table6")) == 2 * 2
    assert paper_results("table5")["clothing", "L=3", "BBQRec"] == 1
    assert paper_results("table6")["beauty", "beam=100 s/user", "BBQRec"] == 0.024


def test_scores_give_the_improvements_that_the_paper_prints_beside_them():
    found = paper_results("table2")
    for dataset, improvements in PRINTED.items():
        for metric, printed in zip(("R@5", "R@10", "N@5", "N@10"), improvements, strict=True):
            baselines = [v for (d, m, x), v in found.items() if (d, m) == (dataset, metric) and x != "BBQRec"]
            over = found[dataset, metric, "MISSRec"] if (dataset, metric) == ("clothing", "N@5") else max(baselines)
            assert 100 * (found[dataset, metric, "BBQRec"] / over - 1) == pytest.approx(printed, abs=0.011)


def test_the_contradictions_of_the_paper_are_found():
    assert contradictions("table2") == dict.fromkeys(
        [("sports", "N@10", "NOVA-BERT"), ("clothing", "N@10", "NOVA-BERT")], IMPOSSIBLE
    )
    assert contradictions("table3") == dict.fromkeys(
        [("sports", "N@10", "w/o U"), ("toys", "N@10", "w/o MIM")], IMPOSSIBLE
    )
    assert contradictions("table4") == {
        ("clothing", "R@10", "BBQRec"): "the paper prints 0.0589 in Table 2, 0.0589 in Table 3, 0.0598 in Table 4"
    }


def test_beside_ours(make_baselines, make_rows, partial_rows):
    rows, _ = make_baselines(("toys", "sports", "synthetic"), seeds=2)
    rows = rows[rows["method"] != "letter"]
    check_golden("sports_toys_table2_paper.md", beside(rows, TABLE_2, improvement=True))
    check_golden("partial_table3_paper.md", beside(partial_rows, TABLE_3))
    check_golden("four_table4_paper.md", beside(make_rows(DATASETS), TABLE_4))


def test_the_improvement_of_either_side(make_baselines):
    rows, _ = make_baselines(("toys",), methods=("tiger", "bbqrec"))
    ours = rows.set_index("method")["test/recall@5"]
    line = beside(rows, TABLE_2, improvement=True).splitlines()[4]
    assert line.endswith(f"| +12.04 % / {100 * (ours['bbqrec'] / ours['tiger'] - 1):+.2f} % |")
    assert "Clothing" not in beside(rows, TABLE_2, improvement=True)


def test_none_of_the_papers_data_sets(make_rows):
    assert beside(make_rows(("synthetic",)), TABLE_3).endswith("The study has none of the paper's data sets.\n")
    assert known("table5", ("mine", "Toys", "beauty")) == ["Toys"]
    assert paper_entry("table5", "Toys", "L=2", "LETTER", "{}").mean == 2522
    assert paper_entry("table5", "mine", "L=2", "LETTER", "{}").mean is None
