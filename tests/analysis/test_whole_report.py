"""A whole store, or a folder of exports: every study, Table 1, the claims and the document; damage is said."""

import io
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from analysis.__main__ import main
from analysis.page import write_page
from analysis.rows import export_rows, load_rows
from analysis.whole import load_whole
from analysis.whole_report import write_whole
from bbqrec.errors import InputError
from bbqrec.metrics import scores

SIZES = {"users": 19412, "items": 11924, "interactions": 167597, "texts": 11890, "images": 0, "average length": 8.634}


@pytest.fixture
def finished(store, publish, write_study):
    """A study of three variants on Toys, of which one is not done, and one of the user's own on it."""
    for method in ("bbqrec", "bbqrec/e"):
        publish(store, "toys", method)
    for name in ("mine", "ablations"):
        write_study(store, methods=("bbqrec", "bbqrec/s", "bbqrec/e"), name=name)
        described = store.load_json("study/ablations.json") | {"datasets": {"toys": SIZES}}
        store.write_json(f"study/{name}.json", described)
    return store


def test_every_study_has_a_folder_and_the_document_names_them(finished, tmp_path):
    written = {path.relative_to(tmp_path / "out").as_posix() for path in write_whole(finished, tmp_path / "out")}
    assert {"ablations/table3.tex", "ablations/figure4.pdf", "mine/overview.tex", "mine/rows.csv"} <= written
    assert {"table1.md", "claims.md", "claims.csv", "claims.tex", "report.tex", "index.html"} <= written
    document = (tmp_path / "out" / "report.tex").read_text()
    assert r"\input{ablations/table4.tex}" in document and r"\input{mine/overview.tex}" in document
    assert "Study ablations: 2 of 3 cells done; data sets Toys; profile tiny; commit 1234567." in document
    table = (tmp_path / "out" / "table1.md").read_text()
    assert "| Users        |  19,412 |  19,412 |" in table and "| Avg. length  |    8.63 |    8.63 |" in table


def files_of(folder) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_an_export_is_rebuilt_byte_for_byte(finished, tmp_path):
    write_whole(finished, tmp_path / "first")
    write_whole(tmp_path / "first", tmp_path / "second")
    write_whole(tmp_path / "second", tmp_path / "third")
    first, second, third = (files_of(tmp_path / name) for name in ("first", "second", "third"))
    page = first.pop("index.html")
    assert second == third and page != second.pop("index.html"), "a store knows the configs, too"
    assert first == second


def test_a_new_row_changes_its_cell_alone(finished, publish, tmp_path):
    write_whole(finished, tmp_path / "before")
    publish(finished, "toys", "bbqrec/s")
    write_whole(finished, tmp_path / "after")
    tables = [(tmp_path / when / "ablations" / "table4.md").read_text() for when in ("before", "after")]
    cells = [[line.split("|") for line in table.splitlines() if line.startswith("|")][2:] for table in tables]
    changed = {
        place
        for old, new in zip(*cells, strict=True)
        for place in range(len(old))
        if old[place].strip() != new[place].strip()
    }
    assert changed == {3}, "the column of S"
    first, second = (pd.read_csv(tmp_path / when / "ablations" / "rows.csv") for when in ("before", "after"))
    kept = [column for column in first if column not in ("status",)]
    pd.testing.assert_frame_equal(first.loc[[0, 2], kept], second.loc[[0, 2], kept], check_dtype=False)


def test_damage_is_left_out_and_said(finished, tmp_path):
    finished.write_json("study/broken.json", {"name": "broken", "cells": [{"method": "bbqrec"}]})
    whole = load_whole(finished)
    assert set(whole.studies) == {"ablations", "mine"}
    assert any("broken" in trouble for trouble in whole.troubles)
    write_whole(finished, tmp_path / "out")
    assert "study broken is left out" in (tmp_path / "out" / "report.tex").read_text()


def test_damaged_curves_and_ranks_and_times_leave_the_rest(store, publish, write_study, tmp_path):
    publish(store, "toys", "bbqrec", files={"ranks_test.npy": b"none"})
    publish(store, "toys", "bbqrec/e", files={"metrics.jsonl": b'{"epoch": "x", "valid/ndcg@10": 1}\n'})
    write_study(store, methods=("bbqrec", "bbqrec/e"))
    write_whole(store, tmp_path / "out")
    document = (tmp_path / "out" / "report.tex").read_text()
    assert "study ablations has no learning curves" in document and "study ablations is not tested" in document
    assert r"\input{ablations/table4.tex}" in document
    (tmp_path / "out" / "inference").mkdir()
    (tmp_path / "out" / "inference" / "inference.json").write_text("{")
    write_whole(tmp_path / "out", tmp_path / "again")
    assert "Table 6 is left out" in (tmp_path / "again" / "report.tex").read_text()
    assert "Table 6 is left out" in write_page(tmp_path / "out", tmp_path / "page.html").read_text()


def test_runs_of_other_users_are_not_compared_and_the_rest_stands(store, publish, write_study, tmp_path):
    for method, users in (("bbqrec", 8), ("bbqrec/s", 9)):
        buffer, ranks = io.BytesIO(), np.arange(1, users + 1)
        np.save(buffer, ranks)
        changes = {"scores": {split: scores(ranks) for split in ("valid", "test")}}
        publish(store, "toys", method, changes=changes, files={"ranks_test.npy": buffer.getvalue()})
    write_study(store, methods=("bbqrec", "bbqrec/s"))
    write_whole(store, tmp_path / "out")
    assert "no ranks: runs on toys rank 8 and 9 users" in (tmp_path / "out" / "report.tex").read_text()


def test_the_document_shows_nothing_of_an_earlier_report(finished, tmp_path):
    write_whole(finished, tmp_path / "out")
    Path(finished.url, "study", "ablations.json").unlink()
    write_whole(finished, tmp_path / "out")
    document = (tmp_path / "out" / "report.tex").read_text()
    assert r"\input{mine/overview.tex}" in document and "ablations" not in document


def test_an_export_is_tested_as_its_store_is(store, publish, tmp_path):
    """Also of the grids, which no table tests but the claims do."""
    cells = []
    for seed, levels in ((0, 3), (1, 1)):
        buffer, ranks = io.BytesIO(), np.arange(1, 9) + 9 * seed
        np.save(buffer, ranks)
        changes = {"seed": 0, "scores": {split: scores(ranks) for split in ("valid", "test")}}
        publish(store, "toys", "bbqrec", seed, changes, {"ranks_test.npy": buffer.getvalue()})
        about = {"method": "bbqrec", "label": "BBQRec", "dataset": "toys", "seed": 0, "status": "done"}
        cells.append(about | {"run_key": f"toys.bbqrec.{seed}", "setting": f"quantizer.levels={levels}"})
    store.write_json("study/hyperparameters.json", {"name": "hyperparameters", "cells": cells})
    write_whole(store, tmp_path / "out")
    write_whole(tmp_path / "out", tmp_path / "again")
    first, second = ((tmp_path / name / "claims.csv").read_text() for name in ("out", "again"))
    judged = [line for line in first.splitlines() if "levels=3 over levels=1" in line]
    assert len(judged) == 1 and "(p " in judged[0], judged
    assert first == second


def test_latex_sets_the_document(finished, tmp_path):
    if shutil.which("pdflatex") is None and shutil.which("tectonic") is None:
        pytest.skip("no LaTeX on this machine")
    try:
        written = write_whole(finished, tmp_path / "out", pdf=True)
    except InputError as error:
        if "not found" in str(error):
            pytest.skip("this LaTeX lacks a package (Debian: texlive-latex-extra)")
        raise
    assert written[-1].read_bytes().startswith(b"%PDF")


@pytest.mark.parametrize("where", ["nothing", "empty"])
def test_a_source_without_studies_is_one_line(tmp_path, capsys, where):
    (tmp_path / "empty").mkdir()
    assert main(["report", "--store", str(tmp_path / where), "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1


def test_one_study_of_a_folder_of_exports(finished, tmp_path, capsys):
    write_whole(finished, tmp_path / "out")
    assert main(["report", "--store", str(tmp_path / "out"), "--study", "mine", "--out", str(tmp_path / "one")]) == 0
    assert (tmp_path / "one" / "overview.md").read_text() == (tmp_path / "out" / "mine" / "overview.md").read_text()
    for words in (["table4"], ["table1"], ["costs"], ["table4", "--study", "mine"]):
        assert main([*words, "--store", str(tmp_path / "out")]) == 0, capsys.readouterr().err
    assert main(["table4", "--store", str(tmp_path / "out"), "--study", "nothing"]) == 2


def test_one_study_has_no_document_to_set(finished, tmp_path, capsys):
    words = ["report", "--store", finished.url, "--study", "mine", "--pdf", "--out", str(tmp_path / "out")]
    assert main(words) == 2
    assert "--pdf" in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_the_command_writes_all_of_it_and_prints_the_claims(finished, tmp_path, capsys):
    assert main(["report", "--store", finished.url, "--out", str(tmp_path / "out")]) == 0
    assert str(tmp_path / "out" / "report.tex") in capsys.readouterr().out.splitlines()
    assert main(["claims", "--store", str(tmp_path / "out")]) == 0
    assert "| 5.3.2   | Removing the similarity module" in capsys.readouterr().out
    assert main(["table1", "--store", finished.url]) == 0
    assert "167,597" in capsys.readouterr().out
    rows = load_rows(finished)
    assert load_rows(export_rows(rows, tmp_path / "rows.csv"))["data/users"].tolist() == [19412.0] * 3
