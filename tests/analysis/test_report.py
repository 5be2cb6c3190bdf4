"""The whole report by function and by command: files, partial and empty stores, bad input."""

import io
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from planted import ranks_of

from analysis.__main__ import main
from analysis.report import write_report
from analysis.rows import export_rows, load_rows
from bbqrec.errors import InputError
from bbqrec.metrics import scores

ROOT = Path(__file__).resolve().parents[2]
FILES = [
    "costs.csv",
    "costs.md",
    "curves.csv",
    "curves.png",
    "figure4.pdf",
    "figure4.png",
    "overview.md",
    "overview.tex",
    "ranks.npz",
    "rows.csv",
    "significance.csv",
    "table3.md",
    "table3.tex",
    "table3_paper.md",
    "table4.md",
    "table4.tex",
    "table4_paper.md",
]


def finish(store, publish, write_study) -> None:
    """A study of three cells of which two are done and one is not."""
    write_study(store, methods=("bbqrec", "bbqrec/s", "bbqrec/e"))
    for method in ("bbqrec", "bbqrec/e"):
        publish(store, "toys", method)


def test_every_file_is_written_and_returned(tmp_path, store, publish, write_study):
    finish(store, publish, write_study)
    written = write_report(store, "ablations", tmp_path / "deep" / "out")
    assert [path.name for path in written] == FILES
    assert all(path.stat().st_size > 0 for path in written)
    assert sorted(path.name for path in (tmp_path / "deep" / "out").iterdir()) == FILES, "nothing is left behind"
    table = (tmp_path / "deep" / "out" / "table4.md").read_text()
    assert "**0.0970**" in table
    assert "Without a result so far: Toys: S." in table
    pd.testing.assert_frame_equal(load_rows(tmp_path / "deep" / "out"), load_rows(store), check_exact=True)


def test_a_report_from_its_own_export_is_the_same(tmp_path, store, publish, write_study):
    finish(store, publish, write_study)
    first = write_report(store.url, "ablations", tmp_path / "first")
    second = write_report(tmp_path / "first", "ablations", tmp_path / "second")
    assert {p.name: p.read_bytes() for p in first} == {p.name: p.read_bytes() for p in second}


def test_written_over_an_older_report_other_files_stay(tmp_path, store, publish, write_study):
    finish(store, publish, write_study)
    out = tmp_path / "out"
    out.mkdir()
    (out / "README.md").write_text("mine")
    (out / "table3.md").write_text("old")
    write_report(store, "ablations", out)
    assert (out / "README.md").read_text() == "mine"
    assert "old" not in (out / "table3.md").read_text().split()


@pytest.mark.parametrize("methods", [(), ("bbqrec/no-id",)])
def test_a_study_of_which_nothing_is_done(tmp_path, store, write_study, methods):
    write_study(store, methods=methods, status="pending")
    assert [path.name for path in write_report(store, "ablations", tmp_path / "out")] == FILES
    assert "Nothing to show" in (tmp_path / "out" / "table3.md").read_text()


def test_another_study_has_an_overview(tmp_path, store, publish, write_study):
    finish(store, publish, write_study)
    store.write_json("study/mine.json", store.load_json("study/ablations.json") | {"name": "mine"})
    written = [p.name for p in write_report(store, "mine", tmp_path / "out")]
    assert written == ["costs.csv", "costs.md", "curves.csv", "curves.png", "overview.md", "overview.tex", "rows.csv"]
    table = (tmp_path / "out" / "overview.md").read_text()
    assert all(f"| {name} " in table for name in ("BBQRec", "S", "E")), table


def test_an_older_study_of_the_name_has_a_report_of_its_own(tmp_path, store, publish, write_study):
    finish(store, publish, write_study)
    store.write_json("study/ablations-0a1b2c3d.json", store.load_json("study/ablations.json"))
    write_study(store, methods=("bbqrec/e",))
    written = write_report(store, "ablations-0a1b2c3d", tmp_path / "out")
    assert [p.name for p in written] == FILES
    assert list(load_rows(tmp_path / "out")["method"]) == ["bbqrec", "bbqrec/s", "bbqrec/e"]
    assert list(load_rows(store)["method"]) == ["bbqrec/e"]


def test_a_study_at_hand_needs_no_study_file(tmp_path, store, publish, write_study):
    finish(store, publish, write_study)
    described = store.load_json("study/ablations.json")
    write_study(store, methods=("bbqrec/e",))  # another driver's
    assert [p.name for p in write_report(store, described, tmp_path / "out")] == FILES
    assert len(load_rows(tmp_path / "out")) == 3


def finish_baselines(store, publish, write_study) -> None:
    """A comparison of two methods and a third that is not done."""
    write_study(store, name="baselines", methods=("sasrec", "tiger", "bbqrec"))
    store.write_json("study/baselines.json", store.load_json("study/ablations.json"))
    for method in ("tiger", "bbqrec"):
        ranks = ranks_of("toys", method, 0)
        files = io.BytesIO()
        np.save(files, ranks)
        found = {split: scores(ranks) for split in ("valid", "test")}
        publish(store, "toys", method, changes={"scores": found}, files={"ranks_test.npy": files.getvalue()})


def test_the_comparison_of_methods_and_its_export(tmp_path, store, publish, write_study):
    finish_baselines(store, publish, write_study)
    written = write_report(store, "baselines", tmp_path / "out")
    names = [
        "costs.csv",
        "costs.md",
        "curves.csv",
        "curves.png",
        "overview.md",
        "overview.tex",
        "ranks.npz",
        "rows.csv",
    ]
    assert [p.name for p in written] == [*names, "significance.csv", "table2.md", "table2.tex", "table2_paper.md"]
    table = (tmp_path / "out" / "table2.md").read_text()
    assert "Holm-corrected over the table (4 cells)." in table and "Without a result so far: Toys: SASRec." in table
    assert len(pd.read_csv(tmp_path / "out" / "significance.csv")) == 4
    again = write_report(tmp_path / "out", "baselines", tmp_path / "again")
    assert {p.name: p.read_bytes() for p in again} == {p.name: p.read_bytes() for p in written}
    (tmp_path / "out" / "ranks.npz").unlink()
    write_report(tmp_path / "out", "baselines", tmp_path / "again")
    assert "the ranks of the users are not at hand" in (tmp_path / "again" / "table2.md").read_text()


def test_out_is_a_file(tmp_path, store, write_study):
    write_study(store)
    (tmp_path / "out").write_text("x")
    for out in (tmp_path / "out", tmp_path / "out" / "deep"):
        with pytest.raises(InputError, match="cannot write"):
            write_report(store, "ablations", out)


def test_nothing_is_half_written(tmp_path, store, publish, write_study, monkeypatch):
    finish(store, publish, write_study)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("analysis.report.save", full)
    with pytest.raises(InputError, match=r"No space left on device"):
        write_report(store, "ablations", tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def test_the_command_prints_the_files(tmp_path, store, publish, write_study, capsys):
    finish(store, publish, write_study)
    assert main(["report", "--store", store.url, "--study", "ablations", "--out", str(tmp_path / "out")]) == 0
    assert capsys.readouterr().out.split() == [str(tmp_path / "out" / name) for name in FILES]


def test_the_command_prints_a_table(store, publish, write_study, capsys):
    finish(store, publish, write_study)
    assert main(["table4", "--store", store.url]) == 0
    assert "| Toys " in capsys.readouterr().out
    assert main(["table3", "--store", store.url, "--tex"]) == 0
    assert r"\toprule" in capsys.readouterr().out
    assert main(["table3", "--store", store.url, "--paper"]) == 0
    assert " 0.0947 / " in capsys.readouterr().out


def test_the_command_prints_tables_2_5_and_6(tmp_path, store, publish, write_study, make_quantizers, capsys):
    finish_baselines(store, publish, write_study)
    assert main(["table2", "--store", store.url]) == 0
    assert "| Improv. |" in capsys.readouterr().out.replace("  ", "")
    assert main(["table2", "--store", store.url, "--paper"]) == 0
    assert "+12.04 % / " in capsys.readouterr().out
    export_rows(make_quantizers(), tmp_path / "rows.csv")
    assert main(["table5", "--store", str(tmp_path), "--tex"]) == 0
    assert r"\multicolumn{2}{c}{RQ-VAE}" in capsys.readouterr().out
    (tmp_path / "inference.json").write_text('{"about": {}, "measurements": []}')
    assert main(["table6", "--measured", str(tmp_path)]) == 0
    assert "nothing was measured" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["report", "--store", "nowhere"], "nowhere does not exist"),
        (["report", "--store", "{store}", "--study", "nothing"], "no study 'nothing'"),
        (["table3", "--store", "{store}/study/x.csv"], "x.csv does not exist"),
        (["table4", "--store", "{store}", "--study", "a/b c"], "unknown study"),
        (["table2", "--store", "{store}"], "no study 'baselines'"),
        (["table2", "--store", "{store}", "--study", "ablations", "--tex", "--paper"], "--paper has no LaTeX"),
        (["table5", "--store", "{store}", "--study", "ablations"], "a cell of the study has setting None"),
        (["table6", "--measured", "nowhere"], "nowhere does not exist: measure first"),
    ],
)
def test_bad_input_is_one_line_and_status_2(store, write_study, capsys, tmp_path, monkeypatch, arguments, said):
    monkeypatch.chdir(tmp_path)
    write_study(store)
    assert main([argument.format(store=store.url) for argument in arguments]) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert said in err
    assert not (tmp_path / "results").exists()


def test_as_a_module_without_torch_or_ray(tmp_path, store, publish, write_study):
    finish(store, publish, write_study)
    script = (
        "import sys, runpy\n"
        "sys.argv = ['analysis', 'report', '--store', sys.argv[1], '--out', sys.argv[2], '--study', 'ablations']\n"
        "try:\n    runpy.run_module('analysis', run_name='__main__')\n"
        "except SystemExit as stop:\n    assert stop.code == 0, stop.code\n"
        "loaded = {'torch', 'ray', 'matplotlib.pyplot'} & set(sys.modules)\n"
        "assert not loaded, loaded\n"
    )
    command = [sys.executable, "-c", script, store.url, str(tmp_path / "out")]
    subprocess.run(command, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, check=True, timeout=120)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == FILES
