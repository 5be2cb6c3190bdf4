"""Ranks from a store and from an export: the same, and refused where they cannot be the run's."""

import io

import numpy as np
import pytest
from planted import ranks_of

from analysis.ranks import EXPORT, export_ranks, load_ranks
from analysis.rows import export_rows, load_rows
from bbqrec.errors import InputError
from bbqrec.metrics import scores

METHODS = ("sasrec", "bbqrec")


def npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


@pytest.fixture
def filled(store, publish, write_study):
    """A store with two runs of two users' worth of ranks and more."""

    def fill(spoil=lambda ranks: npy(ranks)):
        write_study(store, methods=METHODS, name="baselines")
        for method in METHODS:
            ranks = ranks_of("toys", method, 0)
            ranks[ranks > 10] = np.iinfo(np.int32).max  # as a beam search leaves them
            found = {split: scores(ranks) for split in ("valid", "test")}
            publish(store, "toys", method, changes={"scores": found}, files={"ranks_test.npy": spoil(ranks)})
        return store

    return fill


def test_from_a_store_and_from_its_export(filled, tmp_path):
    store = filled()
    rows = load_rows(store)
    ranks = load_ranks(store, rows)
    assert set(ranks) == {"toys.sasrec.0", "toys.bbqrec.0"}
    expected = ranks_of("toys", "sasrec", 0)
    assert ranks["toys.sasrec.0"].tolist() == np.minimum(expected, 11).tolist()
    assert scores(ranks["toys.sasrec.0"]) == scores(expected)
    export_rows(rows, tmp_path / "rows.csv")
    path = export_ranks(ranks, tmp_path / EXPORT)
    again = load_ranks(tmp_path, rows)
    assert {key: found.tolist() for key, found in again.items()} == {key: r.tolist() for key, r in ranks.items()}
    first = path.read_bytes()
    assert export_ranks(dict(reversed(again.items())), path).read_bytes() == first
    assert len(first) < 2 * 2000, "less than a byte per user and run"


def test_an_export_without_ranks_has_none(make_baselines, tmp_path):
    rows, _ = make_baselines()
    export_rows(rows, tmp_path / "rows.csv")
    assert load_ranks(tmp_path, rows) == {}


def test_runs_without_ranks_are_left_out(filled, make_baselines, tmp_path, caplog):
    store = filled()
    rows = load_rows(store)
    (next(tmp_path.glob("store/recommender/toys.sasrec.0/*/ranks_test.npy"))).write_bytes(b"x")
    assert set(load_ranks(store, rows)) == {"toys.bbqrec.0"}
    assert "no ranks" in caplog.text and "toys.sasrec.0" in caplog.text


@pytest.mark.parametrize(
    "spoil",
    [
        lambda ranks: b"nonsense",
        lambda ranks: npy(ranks * 0),
        lambda ranks: npy(ranks.astype(float)),
        lambda ranks: npy(ranks[:, None]),
        lambda ranks: npy(ranks[:0]),
        lambda ranks: npy(np.where(np.arange(len(ranks)) == 7, 1, ranks)),
    ],
)
def test_ranks_that_cannot_be_the_run_s(filled, spoil):
    store = filled(spoil)
    with pytest.raises(InputError, match=r"sasrec"):
        load_ranks(store, load_rows(store))


@pytest.mark.parametrize(
    "spoil",
    [
        lambda path: path.write_bytes(b"PK nonsense"),
        lambda path: path.write_bytes(path.read_bytes()[:-40]),
        lambda path: path.write_bytes(npy(np.ones(3))),
        lambda path: np.savez(path, **{"toys.bbqrec.0": np.zeros(5, dtype=np.uint8)}),
        lambda path: np.savez(path, **{"toys.bbqrec.0": np.ones(5)}),
        lambda path: np.savez(path, **{"toys.bbqrec.0": np.ones(5, dtype=np.uint8)}),
    ],
)
def test_an_export_that_cannot_be_right(make_baselines, tmp_path, spoil):
    rows, ranks = make_baselines()
    export_rows(rows, tmp_path / "rows.csv")
    spoil(export_ranks(ranks, tmp_path / EXPORT))
    with pytest.raises(InputError) as caught:
        load_ranks(tmp_path, rows)
    assert "\n" not in str(caught.value)
