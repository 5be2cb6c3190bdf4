"""Tables 3 and 4 against golden files, what is bold, and that LaTeX really sets them."""

import re

import pytest
from rendered import DOCUMENTS, check_golden, set_by_latex

from analysis.markup import escape
from analysis.tables import TABLE_3, TABLE_4, TABLES, latex, markdown, table

NASTY = "".join(map(chr, range(1, 400))) + "±¬×–—‘’“”…你🙂" + "/very/long.path_without-a:space" * 12


@pytest.fixture
def studies(make_rows, partial_rows, set_status):
    """Name of the golden files -> rows."""
    return {
        "one_seed": make_rows(("synthetic",), profile="tiny"),
        "four": make_rows(("toys", "beauty", "sports", "clothing"), seeds=2, profile="paper"),
        "partial": partial_rows,
        "pending": set_status(make_rows(("toys",)), "pending", study="ablations"),
        "empty": make_rows().iloc[:0],
    }


@pytest.mark.parametrize("name", ["one_seed", "four", "partial", "pending", "empty"])
@pytest.mark.parametrize("spec", TABLES.values(), ids=list(TABLES))
def test_golden(studies, name, spec):
    made = table(studies[name], spec)
    check_golden(f"{name}_{spec.name}.tex", latex(made))
    check_golden(f"{name}_{spec.name}.md", markdown(made))


def entries(rows, spec, dataset_place=0):
    """Metric -> its entries in the table's order of columns."""
    return {line.metric: line.entries for line in table(rows, spec).groups[dataset_place]}


def test_columns_and_rows_are_the_papers(make_rows):
    made = table(make_rows(("toys", "beauty")), TABLE_3)
    assert [label.latex for label in made.labels] == [
        r"BBQRec$_{\neg\mathrm{MIM}}$",
        r"BBQRec$_{\neg\mathrm{Rec}}$",
        r"BBQRec$_{\neg\mathrm{U}}$",
        "BBQRec",
    ]
    assert [[line.metric for line in group] for group in made.groups] == [["R@5", "R@10", "N@5", "N@10"]] * 2
    assert [group[0].dataset for group in made.groups] == ["Beauty", "Toys"]
    assert [line.dataset for line in made.groups[0][1:]] == ["", "", ""]


def test_numbers_stand_under_their_method(make_rows):
    found = entries(make_rows(("toys",)), TABLE_4)
    shares = [1 - 0.03 * place for place in (4, 5, 0)]
    assert [entry.mean for entry in found["N@10"]] == pytest.approx([0.097 * 0.82 * share for share in shares])


def test_the_best_is_bold_whichever_it_is(make_rows):
    rows = make_rows(("toys",))
    rows.loc[rows["method"] == "bbqrec/e", "test/ndcg@5"] = 0.3
    found = entries(rows, TABLE_4)
    assert [entry.best for entry in found["N@5"]] == [False, True, False]
    assert [entry.best for entry in found["N@10"]] == [False, False, True]


def test_what_looks_equal_is_bold_together(make_rows):
    rows = make_rows(("toys",))
    for method, value in (("bbqrec", 0.123449), ("bbqrec/s", 0.123351), ("bbqrec/e", 0.123349)):
        rows.loc[rows["method"] == method, "test/recall@5"] = value
    assert [entry.best for entry in entries(rows, TABLE_4)["R@5"]] == [True, False, True]
    assert re.findall(r"\*\*0\.\d{4}\*\*", markdown(table(rows, TABLE_4)).splitlines()[4]) == ["**0.1234**"] * 2


def test_where_all_are_equal_none_is_best(make_rows):
    rows = make_rows(("toys",))
    rows["test/recall@10"] = 0.0
    assert not any(entry.best for entry in entries(rows, TABLE_4)["R@10"])
    assert any(entry.best for entry in entries(rows, TABLE_4)["R@5"])


def test_a_lone_number_is_not_best(make_rows):
    assert not any(e.best for e in entries(make_rows(methods=("bbqrec",)), TABLE_3)["R@5"])


def test_long_and_equal_errors(make_rows, set_status):
    rows = make_rows(("toys", "sports"))
    for method in ("bbqrec/s", "bbqrec/e"):
        rows = set_status(rows, "failed", "too\nlong " * 80, method=method)
    made = table(rows, TABLE_4)
    assert len(made.notes) == 1, "one footnote for equal errors"
    assert len(made.notes[0][1]) <= 160
    assert made.notes[0][1].endswith("...")
    assert "\n" not in made.notes[0][1]


def test_more_footnotes_than_letters(make_rows, set_status):
    rows = make_rows(("toys",), seeds=30, methods=("bbqrec", "bbqrec/s"))
    for seed in range(29):
        rows = set_status(rows, "failed", f"error {seed}", method="bbqrec", seed=seed)
    made = table(rows, TABLE_4)
    assert [mark for mark, _ in made.notes] == [*"abcdefghijklmnopqrstuvwxyz", "aa", "ab", "ac", "ad"]


def test_markdown_columns_are_straight(partial_rows):
    lines = [line for line in markdown(table(partial_rows, TABLE_3)).splitlines() if line.startswith("|")]
    assert len(lines) == 2 + 12
    assert len({len(line) for line in lines}) == 1
    assert {line.count("|") for line in lines} == {7}


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("50% & $5 #1_{x}", r"50\% \& \$5 \#1\_\{x\}"),
        ("a\\b~c^d", r"a\textbackslash{}b\textasciitilde{}c\textasciicircum{}d"),
        ("Café 你 ±", r"Café ? $\pm$"),
        ("one\n two", "one two"),
    ],
)
def test_escape(text, escaped):
    assert escape(text) == escaped


@pytest.mark.parametrize("document", DOCUMENTS)
def test_latex_sets_every_table(tmp_path, studies, make_rows, set_status, document):
    nasty = set_status(make_rows(("toys",)), "failed", NASTY, method="bbqrec/s")
    pages = [latex(table(rows, spec)) for rows in studies.values() for spec in (TABLE_3, TABLE_4)]
    set_by_latex(tmp_path, document, pages, [latex(table(nasty, TABLE_4)), escape(NASTY, breakable=True)])
