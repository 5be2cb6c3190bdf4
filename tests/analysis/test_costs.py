"""What studies cost: shared runs counted once, teachers among them, and what it says of what it does not know."""

import json

import pandas as pd
import pytest

from analysis.__main__ import main
from analysis.costs import cell_costs, costs_markdown, duration, run_costs, sentence, study_cost
from analysis.report import write_report
from analysis.rows import checked, export_rows, load_rows


@pytest.fixture
def rows(make_rows) -> pd.DataFrame:
    """Full model, S (the full model's quantizer), E without a result, LETTER (taught by SASRec) and SASRec itself."""
    made = make_rows(methods=("bbqrec", "bbqrec/s", "bbqrec/e", "bbqrec/no-mim", "bbqrec/no-rec"))
    named = {"bbqrec/no-mim": ("letter", "LETTER"), "bbqrec/no-rec": ("sasrec", "SASRec")}
    for old, (method, label) in named.items():
        made.loc[made["method"] == old, ["method", "label", "run_key"]] = [method, label, method]
    made = made.set_index("method", drop=False)
    made.index.name = None
    made.loc["bbqrec/e", "status"] = "pending"
    made.loc[["bbqrec", "bbqrec/s", "bbqrec/e"], "quantizer_key"] = "q"
    made.loc["letter", ["quantizer_key", "teacher_key"]] = ["lq", "sasrec"]
    made.loc["sasrec", "quantizer_key"] = None
    quantizer = {"bbqrec": 100.0, "bbqrec/s": 100.0, "letter": 40.0}
    recommender = {"bbqrec": 1000.0, "bbqrec/s": 2000.0, "letter": 500.0, "sasrec": 300.0}
    made["costs/quantizer_seconds"], made["costs/recommender_seconds"] = pd.Series(quantizer), pd.Series(recommender)
    made["costs/teacher_seconds"] = pd.Series({"letter": 300.0})
    return checked(made.reset_index(drop=True), "made rows")


def test_each_run_is_counted_once_and_the_shares_add_up(rows):
    cells = cell_costs(rows).set_index("method")
    assert dict(cells["alone_seconds"]) == {"bbqrec": 1100, "bbqrec/s": 2100, "letter": 840, "sasrec": 300}
    assert dict(cells["shared_seconds"]) == {"bbqrec": 1050, "bbqrec/s": 2050, "letter": 690, "sasrec": 150}
    runs = run_costs(cells.reset_index())
    assert runs["seconds"].sum() == cells["shared_seconds"].sum() == 100 + 1000 + 2000 + 40 + 500 + 300
    assert runs.loc[["q", "sasrec", "lq"], "cells"].tolist() == [2, 2, 1]
    assert runs.loc["sasrec", "stage"] == "recommender" and len(runs) == 6
    cost = study_cost(rows, held=("q", "elsewhere"))
    assert (cost.cells, cost.runs, cost.asked, cost.unknown) == (4, 6, 8, 0)
    assert (cost.seconds, cost.alone_seconds, cost.held, cost.held_seconds) == (3940, 4340, 1, 100)


def test_the_sentence(rows):
    assert sentence(rows) == (
        "cost: 1.09 h of computing (6 runs); without sharing 1.21 h (8 runs); not counted: 1 cell without a result"
    )
    done = rows[rows["status"] == "done"]
    assert "; 1 run (1.7 min) were in the store before" in sentence(done, held=("q",))
    forgot = done.assign(**{"costs/quantizer_seconds": float("nan")})
    assert sentence(forgot).startswith("cost: 1.06 h of computing (6 runs)")
    assert sentence(forgot).endswith("; 2 runs recorded no seconds")
    assert sentence(done.drop(columns=[c for c in done if c.startswith("costs/")])).startswith("cost: no run has rec")
    assert sentence(rows.iloc[:0]).startswith("cost: no run has")
    assert [duration(s) for s in (12.3, 252, 1512)] == ["12.3 s", "4.2 min", "0.42 h"]


def test_the_table_sums_shares_to_the_cost_and_says_device_hours(rows):
    device = {"wall_seconds": 360.0, "core_seconds": 720.0, "gpu_seconds": 0.0}
    for stage in ("quantizer", "recommender"):
        for name, value in device.items():
            rows[f"costs/{stage}_{name}"] = value
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in costs_markdown(rows).splitlines()]
    table = {line[1]: line[2:] for line in lines if len(line) == 8}
    assert table["LETTER"] == ["1", "0.08", "0.01", "0.14", "0.23", "0.19"]
    assert table[""] == ["4", "0.08", "0.07", "1.06", "1.21", "1.09"]
    # Two quantizers and four recommenders.
    assert "All runs without teachers: 0.600 h of wall time, 1.200 core hours, 0.000 GPU" in costs_markdown(rows)
    few = rows[rows["method"] == "sasrec"].drop(columns="costs/recommender_gpu_seconds")
    assert "minutes of work" in costs_markdown(few) and "core hours" not in costs_markdown(few)


def test_quantizers_are_counted_by_their_own_seconds(make_quantizers):
    rows = make_quantizers(methods=("tiger", "bbqrec"), levels=(2, 3)).assign(**{"costs/seconds": 30.0})
    rows["costs/wall_seconds"] = rows["costs/core_seconds"] = rows["costs/gpu_seconds"] = 36.0
    cost = study_cost(rows)
    assert (cost.runs, cost.asked, cost.seconds, cost.alone_seconds) == (4, 4, 120, 120)
    assert cell_costs(rows)["recommender_key"].isna().all()
    assert "0.040 GPU hours" in costs_markdown(rows) and "BBQRec quantizer.levels=3" in costs_markdown(rows)


def test_a_teacher_of_which_only_the_study_file_tells(tmp_path, store, publish, write_study):
    """Rows of an older version name no teacher and not its seconds."""
    write_study(store, methods=("bbqrec", "bbqrec/s"))
    study = store.load_json("study/ablations.json")
    study["cells"][1]["teacher_key"] = "teacher.run"
    store.write_json("study/ablations.json", study)
    for method in ("bbqrec", "bbqrec/s"):
        publish(store, "toys", method)
    assert study_cost(load_rows(store)).unknown == 1
    folder = tmp_path / "teacher"
    folder.mkdir()
    (folder / "row.json").write_text(json.dumps({"costs": {"recommender_seconds": 50.0}}))
    store.publish("recommender", "teacher.run", folder, "a")
    assert study_cost(load_rows(store)).seconds == 3.25 + 2 * 7.5 + 50
    assert study_cost(load_rows(store)).alone_seconds == 2 * (3.25 + 7.5) + 50


def test_the_report_has_the_costs_and_older_exports_too(tmp_path, store, publish, write_study, rows, capsys):
    write_study(store, methods=("bbqrec", "bbqrec/s"))
    for method in ("bbqrec", "bbqrec/s"):
        publish(store, "toys", method)
    write_report(store, "ablations", tmp_path / "out")
    written = pd.read_csv(tmp_path / "out" / "costs.csv")
    assert written["alone_seconds"].tolist() == [10.75, 10.75] and written["shared_seconds"].sum() == 3.25 + 2 * 7.5
    said = (tmp_path / "out" / "costs.md").read_text()
    assert "18.2 s of computing (3 runs); without sharing 21.5 s (4 runs)" in said
    assert main(["costs", "--store", store.url]) == 0 and capsys.readouterr().out == said
    export_rows(rows.drop(columns="teacher_key"), tmp_path / "rows.csv")
    assert study_cost(load_rows(tmp_path / "rows.csv")).runs == 6
