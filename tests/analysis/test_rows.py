"""Rows from a store and from exports; what is missing is a row, what cannot be right is an InputError."""

from pathlib import Path

import pandas as pd
import pytest

from analysis.rows import METRICS, SCORES, SPLITS, checked, export_rows, load_rows
from bbqrec.errors import InputError
from bbqrec.store import Store


def test_a_row_per_cell_with_scores_costs_and_provenance(store, publish, write_study):
    write_study(store, seeds=2, methods=("bbqrec", "bbqrec/s"), status="pending")
    for method, seed in (("bbqrec", 0), ("bbqrec", 1), ("bbqrec/s", 1)):
        publish(store, "toys", method, seed)
    rows = load_rows(store)
    assert list(zip(rows["method"], rows["seed"], rows["status"], strict=True)) == [
        ("bbqrec", 0, "done"),
        ("bbqrec/s", 0, "pending"),
        ("bbqrec", 1, "done"),
        ("bbqrec/s", 1, "done"),
    ], "the store knows better than an old study file"
    first, waiting = rows.iloc[0], rows.iloc[1]
    assert first["test/ndcg@10"] == pytest.approx(0.097 * 0.82)
    assert first["valid/recall@10"] == pytest.approx(0.097 * 1.37 * 1.1)
    assert rows.iloc[2]["test/ndcg@10"] == pytest.approx(0.097 * 0.82 * 1.02)
    assert waiting[list(SCORES)].isna().all()
    assert (first["profile"], first["overrides"]) == ("tiny", "recommender.epochs=2")
    assert (first["costs/recommender_seconds"], first["id_collisions/distinct"]) == (7.5, 220)
    assert (first["codebook/codes/usage"], first["components"]) == (0.75, "id+text+image")
    assert (first["provenance/commit"], first["provenance/version"]) == ("1234567", "0.10")
    assert not any("host" in column for column in rows.columns)
    assert "secret" not in rows.to_csv()


def test_a_run_that_the_study_calls_done_and_the_store_lacks_is_pending(store, publish, write_study):
    write_study(store, methods=("bbqrec", "bbqrec/e"))
    publish(store, "toys", "bbqrec")
    assert list(load_rows(store.url)["status"]) == ["done", "pending"]


def test_a_failed_cell_keeps_its_error(store, write_study):
    write_study(store, methods=("bbqrec",))
    study = store.load_json("study/ablations.json")
    study["cells"][0] |= {"status": "failed", "error": "out of memory"}
    store.write_json("study/ablations.json", study)
    assert load_rows(store)[["status", "error"]].values.tolist() == [["failed", "out of memory"]]


def test_a_damaged_run_is_pending_with_the_damage_as_error(store, publish, write_study):
    write_study(store, methods=("bbqrec", "bbqrec/e"))
    for method in ("bbqrec", "bbqrec/e"):
        publish(store, "toys", method)
    next(Path(store.url).glob("recommender/toys.bbqrec.e.0/*/row.json")).write_text("{}")
    rows = load_rows(store)
    assert list(rows["status"]) == ["done", "pending"]
    assert "row.json is damaged" in rows["error"][1]


def test_a_study_without_cells_is_an_empty_frame_with_all_columns(store, write_study):
    write_study(store, methods=())
    rows = load_rows(store)
    assert len(rows) == 0
    assert {"method", "status", "run_key", *SCORES} <= set(rows.columns)


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_exports_read_back_equal(tmp_path, partial_rows, suffix):
    rows = partial_rows.copy()
    rows.loc[0, ["run_key", "dataset"]] = "0123456789012345", "NA"
    rows["provenance/version"] = "0.10"
    path = export_rows(rows, tmp_path / f"rows.{suffix}")
    pd.testing.assert_frame_equal(load_rows(path), load_rows(tmp_path), check_exact=True)
    pd.testing.assert_frame_equal(load_rows(path), checked(rows, "rows"), check_exact=True)


@pytest.mark.parametrize(
    ("source", "study", "said"),
    [
        ("nowhere", "ablations", ("store nowhere does not exist", "--store")),
        ("nowhere.csv", "ablations", ("nowhere.csv does not exist",)),
        ("gopher://x/y", "ablations", ("gopher", "s3://")),
        (
            "store",
            "ablations-11111111",
            ("no study 'ablations-11111111'", "use one of ablations (toys: 9 variants, seeds 0, profile tiny, 2026"),
        ),
        ("store", "../x", ("unknown study '../x'",)),
    ],
)
def test_what_is_not_there(tmp_path, monkeypatch, write_study, source, study, said):
    monkeypatch.chdir(tmp_path)
    write_study(Store(tmp_path / "store"), created="2026-01-02T03:04:05+00:00")
    with pytest.raises(InputError) as caught:
        load_rows(source, study)
    assert all(words in str(caught.value) for words in said), str(caught.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["store"], "reading creates nothing"


def test_a_store_without_studies(store):
    with pytest.raises(InputError, match=r"no study 'baselines': run it first: python sweeps/baselines\.py"):
        load_rows(store, "baselines")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"seed": 3}, ("has seed 3, the study 0",)),
        ({"fingerprint": "e" * 64}, ("has fingerprint 'eeee",)),
        ({"scores": {"valid": {}}}, ("has no score valid/recall@5",)),
        ({"scores": None}, ("has no score",)),
        (
            {"scores": {s: dict.fromkeys(METRICS, 1.5) for s in SPLITS}},
            ("valid/recall@5 of toys bbqrec seed 0 is 1.5",),
        ),
        ({"scores": {s: dict.fromkeys(METRICS, None) for s in SPLITS}}, ("valid/recall@5", "is no value")),
        ({"scores": {s: dict.fromkeys(METRICS, "high") for s in SPLITS}}, ("valid/recall@5", "is 'high'")),
    ],
)
def test_a_row_that_cannot_be_right(store, publish, write_study, change, said):
    write_study(store, methods=("bbqrec",))
    publish(store, "toys", "bbqrec", changes=change)
    with pytest.raises(InputError) as caught:
        load_rows(store)
    assert all(words in str(caught.value) for words in said), str(caught.value)


def test_a_data_set_under_another_name_is_the_study_s(store, publish, write_study):
    """The run was computed for a copy of the data set; keys come from the fingerprint."""
    write_study(store, methods=("bbqrec", "bbqrec/e"))
    publish(store, "toys", "bbqrec", changes={"dataset": "copy"})
    rows = load_rows(store)
    assert list(rows["dataset"]) == ["toys", "toys"] and list(rows["status"]) == ["done", "pending"]
    assert list(rows["fingerprint"]) == ["f" * 64] * 2


def test_a_study_file_without_fingerprints_reads_as_before(store, publish, write_study):
    write_study(store, methods=("bbqrec",))
    study = store.load_json("study/ablations.json")
    del study["cells"][0]["fingerprint"]
    store.write_json("study/ablations.json", study)
    publish(store, "toys", "bbqrec")
    assert list(load_rows(store)[["status", "fingerprint"]].iloc[0]) == ["done", "f" * 64]


def test_every_cell_of_a_run_is_checked(store, publish, write_study):
    """Two seeds that a study puts down to one run."""
    write_study(store, methods=("bbqrec",), seeds=2)
    study = store.load_json("study/ablations.json")
    study["cells"][1]["run_key"] = study["cells"][0]["run_key"]
    store.write_json("study/ablations.json", study)
    publish(store, "toys", "bbqrec")
    with pytest.raises(InputError, match="has seed 0, the study 1"):
        load_rows(store)


def test_the_damage_of_a_run_shows_in_all_its_cells(store, publish, write_study):
    write_study(store, methods=("bbqrec", "bbqrec/e"))
    study = store.load_json("study/ablations.json")
    study["cells"][1]["run_key"] = study["cells"][0]["run_key"]
    store.write_json("study/ablations.json", study)
    publish(store, "toys", "bbqrec")
    next(Path(store.url).glob("recommender/*/*/row.json")).write_text("{}")
    assert all("row.json is damaged" in error for error in load_rows(store)["error"])


@pytest.mark.parametrize("content", [b"[1]", b"{", b"\xff"])
def test_a_row_that_is_no_object(store, publish, write_study, content):
    write_study(store, methods=("bbqrec",))
    publish(store, "toys", "bbqrec", files={"row.json": content})
    with pytest.raises(InputError, match=r"row\.json of run toys\.bbqrec\.0 is no"):
        load_rows(store)


@pytest.mark.parametrize(
    ("study", "said"),
    [
        ([], "lists no cells"),
        ({"cells": 3}, "lists no cells"),
        ({"cells": [7]}, "a cell without method"),
        ({"cells": [{"method": "bbqrec"}]}, "without label, dataset, seed"),
    ],
)
def test_a_study_file_of_another_form(store, study, said):
    store.write_json("study/ablations.json", study)
    with pytest.raises(InputError, match=said):
        load_rows(store)


@pytest.mark.parametrize(("field", "value"), [("status", "fine"), ("run_key", "../up"), ("seed", "one")])
def test_a_cell_that_cannot_be_right(store, write_study, field, value):
    write_study(store, methods=("bbqrec",))
    study = store.load_json("study/ablations.json")
    study["cells"][0][field] = value
    store.write_json("study/ablations.json", study)
    with pytest.raises(InputError, match=field):
        load_rows(store)


def test_a_study_file_that_is_not_json(store):
    (Path(store.url) / "study").mkdir()
    (Path(store.url) / "study" / "ablations.json").write_text("{")
    with pytest.raises(InputError, match="is not JSON"):
        load_rows(store)


def _without(column):
    return lambda frame: frame.drop(columns=column)


def _with(column, value):
    return lambda frame: frame.assign(**{column: value})


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (_without("run_key"), "no column run_key"),
        (_with("status", "fine"), "status of toys bbqrec seed 0 is 'fine'"),
        (_with("test/ndcg@10", "high"), "test/ndcg@10 of toys bbqrec seed 0 is 'high'"),
        (_with("test/ndcg@10", "-0.1"), "is -0.1"),
        (_with("test/ndcg@10", None), "is no value"),
        (_with("test/ndcg@10", "inf"), "is inf"),
        (_with("seed", "1.5"), "seed of toys bbqrec seed 1.5"),
        (_with("method", "bbqrec"), "twice"),
        (_with("study", "baselines"), "no study 'ablations'.*--study baselines"),
    ],
)
def test_exported_rows_that_cannot_be_right(tmp_path, make_rows, spoil, said):
    spoil(make_rows().astype(object)).to_csv(tmp_path / "rows.csv", index=False)
    with pytest.raises(InputError, match=said):
        load_rows(tmp_path)


@pytest.mark.parametrize("name", ["rows.csv", "rows.parquet"])
@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00", b'a,b\n"1,2\n3'])
def test_exports_that_cannot_be_read(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=name) as caught:
        load_rows(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_a_cut_parquet(tmp_path, make_rows):
    path = export_rows(make_rows(), tmp_path / "rows.parquet")
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(InputError, match="cannot read"):
        load_rows(path)


def test_another_format_of_export(tmp_path, make_rows):
    with pytest.raises(InputError, match=r"rows\.xlsx.*\.csv or \.parquet"):
        export_rows(make_rows(), tmp_path / "rows.xlsx")
