"""Table 5: counts by method and number of levels, the paper's beside them; quantizers' rows from a store."""

import json

import pytest
from rendered import DOCUMENTS, check_golden, set_by_latex

from analysis.collisions import table5
from analysis.report import write_report
from analysis.rows import export_rows, load_rows
from analysis.tables import latex, markdown
from bbqrec.errors import InputError


@pytest.fixture
def studies(make_quantizers, set_status):
    """Name of the golden files -> rows."""
    partial = make_quantizers(("toys", "mine"), methods=("tiger", "bbqrec"), seeds=2)
    partial = set_status(partial, "failed", "loss is nan", dataset="toys", method="tiger", setting="quantizer.levels=2")
    partial = set_status(partial, "pending", dataset="mine", method="bbqrec", seed=1)
    partial = set_status(partial, "pending", dataset="mine", method="bbqrec", setting="quantizer.levels=4")
    return {
        "two": make_quantizers(("toys", "clothing")),
        "seeds": make_quantizers(("toys",), seeds=3),
        "synthetic": make_quantizers(("synthetic",)),
        "partial": partial,
        "empty": make_quantizers().iloc[:0],
    }


@pytest.mark.parametrize("name", ["two", "seeds", "synthetic", "partial", "empty"])
def test_golden(studies, name):
    made = table5(studies[name])
    check_golden(f"{name}_table5.tex", latex(made))
    check_golden(f"{name}_table5.md", markdown(made))


@pytest.mark.parametrize("document", DOCUMENTS)
def test_latex_sets_it(tmp_path, studies, document):
    set_by_latex(tmp_path, document, [latex(table5(rows)) for rows in studies.values()])


def test_a_count_stands_under_its_method_beside_the_papers(make_quantizers):
    made = table5(make_quantizers(("toys",)))
    assert [label.plain for label in made.labels] == ["paper", "ours"] * 3
    assert [name for name, _ in made.spans] == ["RQ-VAE", "LETTER", "BBQRec"]
    found = {line.metric: [entry.mean for entry in line.entries] for line in made.groups[0]}
    assert found["L=2"] == [2154, 375, 2522, 37, 12, 3]
    assert found["L=4"] == [163, 46, 19, 4, 0, 0]


@pytest.mark.parametrize("setting", [None, "quantizer.codes=4", "quantizer.levels=many"])
def test_a_setting_without_levels(make_quantizers, setting):
    with pytest.raises(InputError, match=r"no quantizer\.levels"):
        table5(make_quantizers(levels=(2,)).assign(setting=setting))


@pytest.fixture
def quantizer_study(store, tmp_path):
    """A store with a study of two quantizers, of which one is published with a row as stage 1 writes it."""

    def write(**changes) -> None:
        cells = [
            {"method": "tiger", "label": "TIGER", "dataset": "toys", "fingerprint": "f" * 64, "seed": 0, "note": None}
            | {"setting": f"quantizer.levels={n}", "quantizer_key": f"q{n}", "run_key": f"q{n}", "status": "done"}
            for n in (2, 3)
        ]
        about = {"name": "collisions", "stage": "quantizer", "profile": "tiny", "overrides": {}, "cells": cells}
        store.write_json("study/collisions.json", about)
        row = {"key": "q2", "collisions": {"items": 222, "excess": 7, "distinct": 215}, "costs": {"seconds": 1.5}}
        row |= {"provenance": {"commit": "1234567", "host": "secret"}, **changes}
        (tmp_path / "made").mkdir()
        (tmp_path / "made" / "row.json").write_text(json.dumps(row))
        (tmp_path / "made" / "config.json").write_text(json.dumps({"components": ["text"], "levels": 2}))
        store.publish("quantizer", "q2", tmp_path / "made", "attempt-1")

    return write


def test_rows_of_quantizers_from_a_store_and_from_an_export(store, quantizer_study, tmp_path):
    quantizer_study()
    rows = load_rows(store, "collisions")
    assert list(rows["status"]) == ["done", "pending"] and list(rows["stage"]) == ["quantizer"] * 2
    first = rows.iloc[0]
    assert (first["collisions/excess"], first["components"], first["costs/seconds"]) == (7, "text", 1.5)
    assert first["provenance/commit"] == "1234567" and "secret" not in rows.to_csv()
    assert rows["test/ndcg@10"].isna().all()
    written = write_report(store, "collisions", tmp_path / "out")
    names = ["costs.csv", "costs.md", "rows.csv", "table5.md", "table5.tex"]
    assert [path.name for path in written] == names, "quantizers have no such curves"
    again = write_report(tmp_path / "out", "collisions", tmp_path / "again")
    assert {p.name: p.read_bytes() for p in again} == {p.name: p.read_bytes() for p in written}


@pytest.mark.parametrize(
    ("changes", "said"),
    [({"key": "q3"}, "has key 'q3'"), ({"collisions": {}}, "has no number of collisions/excess")],
)
def test_a_row_that_cannot_be_the_quantizer_s(store, quantizer_study, changes, said):
    quantizer_study(**changes)
    with pytest.raises(InputError, match=said):
        load_rows(store, "collisions")


def test_exported_quantizers_without_their_count(make_quantizers, tmp_path):
    export_rows(make_quantizers().drop(columns="collisions/excess"), tmp_path / "rows.csv")
    with pytest.raises(InputError, match=r"collisions/excess of toys tiger seed 0 is no value"):
        load_rows(tmp_path, "collisions")
    export_rows(make_quantizers().assign(stage="third"), tmp_path / "rows.csv")
    with pytest.raises(InputError, match=r"stage of toys tiger seed 0 is 'third'"):
        load_rows(tmp_path, "collisions")


def test_a_study_file_of_an_unknown_stage_or_setting(store, quantizer_study):
    quantizer_study()
    study = store.load_json("study/collisions.json")
    store.write_json("study/collisions.json", study | {"stage": "third"})
    with pytest.raises(InputError, match="stage 'third'"):
        load_rows(store, "collisions")
    study["cells"][1]["setting"] = {"quantizer.levels": 3}
    store.write_json("study/collisions.json", study)
    with pytest.raises(InputError, match="a cell with setting"):
        load_rows(store, "collisions")
