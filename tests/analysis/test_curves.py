"""Learning curves from metrics.jsonl and from their export."""

from pathlib import Path

import pandas as pd
import pytest

from analysis.curves import METRIC, load_curves
from analysis.rows import export_rows, load_rows
from bbqrec.errors import InputError


def test_a_line_per_cell_and_epoch(store, publish, write_study, caplog):
    write_study(store, methods=("bbqrec", "bbqrec/s", "bbqrec/e"))
    for method in ("bbqrec", "bbqrec/e"):
        publish(store, "toys", method)
    curves = load_curves(store, load_rows(store))
    assert list(zip(curves["method"], curves["epoch"], strict=True)) == [
        (method, epoch) for method in ("bbqrec", "bbqrec/e") for epoch in (1, 2, 3)
    ]
    best = 0.097 * 0.82 * 1.1
    assert curves[METRIC].tolist()[:3] == pytest.approx([best * 0.5, best, best * 0.9])
    assert not caplog.records, "a cell that is not done is no surprise"


def test_cells_that_share_a_run_share_its_curve(store, publish, write_study):
    write_study(store, methods=("bbqrec", "bbqrec/no-image"))
    study = store.load_json("study/ablations.json")
    study["cells"][1]["run_key"] = study["cells"][0]["run_key"]
    store.write_json("study/ablations.json", study)
    publish(store, "toys", "bbqrec")
    curves = load_curves(store, load_rows(store))
    assert curves.groupby("method").size().to_dict() == {"bbqrec": 3, "bbqrec/no-image": 3}


def test_a_damaged_log_has_no_curve(store, publish, write_study, caplog):
    write_study(store, methods=("bbqrec",))
    publish(store, "toys", "bbqrec")
    rows = load_rows(store)
    next(Path(store.url).glob("recommender/*/*/metrics.jsonl")).write_text("cut")
    assert load_curves(store, rows).empty
    assert "metrics.jsonl" in caplog.text


@pytest.mark.parametrize(
    "log",
    [
        b"{",
        b"[1]\n",
        b'{"valid/ndcg@10": 0.1}\n',
        b'{"epoch": 1, "valid/ndcg@10": "x"}\n',
        b'{"epoch": 1, "valid/ndcg@10": NaN}\n',
        b"\xff",
    ],
)
def test_a_log_of_another_form(store, publish, write_study, log):
    write_study(store, methods=("bbqrec",))
    publish(store, "toys", "bbqrec", files={"metrics.jsonl": log})
    with pytest.raises(InputError, match=r"metrics\.jsonl of run toys\.bbqrec\.0"):
        load_curves(store, load_rows(store))


def test_the_export_reads_back(tmp_path, store, publish, write_study):
    write_study(store, methods=("bbqrec", "bbqrec/s"))
    publish(store, "toys", "bbqrec")
    rows = load_rows(store)
    curves = load_curves(store, rows)
    export_rows(rows, tmp_path / "rows.csv")
    assert load_curves(tmp_path, rows).empty, "no file, no curves"
    curves.to_csv(tmp_path / "curves.csv", index=False)
    pd.testing.assert_frame_equal(load_curves(tmp_path / "rows.csv", rows), curves, check_dtype=False, check_exact=True)


@pytest.mark.parametrize(
    "content", ["", "a,b\n1,2\n", "dataset,method,label,seed,run_key,epoch,valid/ndcg@10\na,b,c,x,d,1,2\n"]
)
def test_an_export_that_cannot_be_read(tmp_path, make_rows, content):
    export_rows(make_rows(), tmp_path / "rows.csv")
    (tmp_path / "curves.csv").write_text(content)
    with pytest.raises(InputError, match=r"curves\.csv"):
        load_curves(tmp_path, make_rows())
