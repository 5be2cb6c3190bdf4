"""Tables and feature files of every kind end in the same data set; filtering and ordering against loops."""

import gzip

import numpy as np
import pandas as pd
import pytest

from bbqrec.data import load_dataset
from bbqrec.datasets import tables
from bbqrec.datasets.core import index_interactions, k_core
from bbqrec.datasets.features import align, read_features
from bbqrec.datasets.interactions import read_columns
from bbqrec.datasets.tabular import TabularSource, prepare_tabular
from bbqrec.errors import InputError

ROWS = [  # user, item, time: users and items not in order, ties in time, one item (Z) that only the items table knows
    ("u2", "C", 5), ("u1", "A", 9), ("u2", "A", 5), ("u1", "C", 2), ("u2", "D", 1), ("u1", "B", 9), ("u1", "D", 9),
]  # fmt: skip
ORDERED = {"u1": ["C", "A", "B", "D"], "u2": ["D", "C", "A"]}
BY_ROW = {"u1": ["A", "C", "B", "D"], "u2": ["C", "A", "D"]}


@pytest.fixture
def table() -> pd.DataFrame:
    return pd.DataFrame(ROWS, columns=["user_id", "item_id", "timestamp"])


@pytest.fixture
def source(table, tmp_path) -> TabularSource:
    table.to_csv(tmp_path / "interactions.csv", index=False)
    items = pd.DataFrame({"item_id": ["Z", "D", "A", "B"], "title": ["zed", "dee", "", "bee"]})
    items.to_csv(tmp_path / "items.csv", index=False)
    np.savez(tmp_path / "text.npz", item_ids=np.array(["B", "Q", "A"]), features=np.eye(3, 5, dtype=np.float16))
    return TabularSource(
        interactions=tmp_path / "interactions.csv",
        items=tmp_path / "items.csv",
        features={"text": tmp_path / "text.npz"},
    )


def replaced(source: TabularSource, **changes) -> TabularSource:
    return TabularSource(**{**source.__dict__, **changes})


def histories(dataset) -> dict[str, list[str]]:
    parts = zip(dataset.user_ids, dataset.offsets[:-1], dataset.offsets[1:], strict=True)
    return {user: dataset.item_ids[dataset.items[a:b]].tolist() for user, a, b in parts}


def test_the_whole_path(source, tmp_path):
    prepared = prepare_tabular(source, tmp_path / "out", "shop")
    dataset = load_dataset(tmp_path / "out")
    assert dataset.name == "shop" and dataset.item_ids.tolist() == ["A", "B", "C", "D"]
    assert histories(dataset) == ORDERED
    assert dataset.titles.tolist() == ["", "bee", "", "dee"]
    text = dataset.features["text"]
    assert text.values.tolist() == [[0, 0, 1, 0, 0], [1, 0, 0, 0, 0], [0] * 5, [0] * 5]
    assert text.present.tolist() == [True, True, False, False]
    assert [n.split(": ")[1] for n in prepared.notes] == [
        "1 items of the interactions are not listed; no title",
        "1 listed items have no interaction and were left out",
        "1 items are not in the data set and were ignored",
    ]


def test_row_order_between_users_and_between_items_does_not_matter(source, table, tmp_path):
    first = prepare_tabular(source, tmp_path / "a", "a").dataset
    table.sort_values(["user_id", "timestamp"], kind="stable").to_csv(source.interactions, index=False)
    assert prepare_tabular(source, tmp_path / "b", "b").dataset.fingerprint == first.fingerprint


@pytest.mark.parametrize("kind", ["parquet", "csv.gz", "tsv"])
def test_every_kind_of_table_gives_the_same_data(source, table, tmp_path, kind):
    wanted = prepare_tabular(source, tmp_path / "a", "a").dataset.fingerprint
    path = tmp_path / f"other.{kind}"
    if kind == "parquet":
        table.to_parquet(path)
    else:
        content = table.to_csv(sep="\t" if kind == "tsv" else ",", index=False).encode()
        path.write_bytes(gzip.compress(content) if kind.endswith("gz") else content)
    assert prepare_tabular(replaced(source, interactions=path), tmp_path / "b", "b").dataset.fingerprint == wanted


def test_columns_have_any_name_and_time_is_optional(source, table, tmp_path):
    path = tmp_path / "renamed.parquet"
    table.rename(columns={"user_id": "who", "item_id": "asin", "timestamp": "when"}).to_parquet(path)
    bare = TabularSource(interactions=path, user_column="who", item_column="asin", time_column="when")
    assert histories(prepare_tabular(bare, tmp_path / "a", "a").dataset) == ORDERED
    unordered = prepare_tabular(replaced(bare, time_column=None), tmp_path / "b", "b").dataset
    assert histories(unordered) == BY_ROW
    assert unordered.titles.tolist() == ["", "", "", ""] and unordered.features == {}


@pytest.mark.parametrize(
    "as_time",
    [
        lambda t: pd.to_datetime(t, unit="D"),
        lambda t: pd.to_datetime(t, unit="D").dt.strftime("%Y-%m-%d"),
        lambda t: t / 3,
        lambda t: t.astype(str).replace("9", "10"),  # as text "10" would come before "2"
    ],
)
@pytest.mark.parametrize("kind", ["parquet", "csv"])
def test_times_are_numbers_or_dates(source, table, tmp_path, as_time, kind):
    path = tmp_path / f"times.{kind}"
    timed = table.assign(timestamp=as_time(table["timestamp"]))
    timed.to_parquet(path) if kind == "parquet" else timed.to_csv(path, index=False)
    assert histories(prepare_tabular(replaced(source, interactions=path), tmp_path / "o", "o").dataset) == ORDERED


def test_ids_stay_what_they_are(tmp_path):
    users, items = ["007", "NA", "1e3"], ["0001", "nan", "12"]
    table = pd.DataFrame(
        [(u, i, t) for u in users for t, i in enumerate(items)], columns=["user_id", "item_id", "timestamp"]
    )
    table.to_csv(tmp_path / "t.csv", index=False)
    dataset = prepare_tabular(TabularSource(interactions=tmp_path / "t.csv"), tmp_path / "o", "o").dataset
    assert dataset.user_ids.tolist() == sorted(users) and dataset.item_ids.tolist() == sorted(items)


def test_integer_ids_match_text_ids(tmp_path):
    pd.DataFrame({"user_id": [1] * 3, "item_id": [30, 4, 5], "timestamp": [0, 1, 2]}).to_parquet(tmp_path / "t.parquet")
    np.savez(tmp_path / "f.npz", item_ids=np.array([4, 5]), features=np.ones((2, 3)))
    source = TabularSource(interactions=tmp_path / "t.parquet", features={"image": tmp_path / "f.npz"})
    dataset = prepare_tabular(source, tmp_path / "o", "o").dataset
    assert dataset.item_ids.tolist() == ["30", "4", "5"]
    assert dataset.features["image"].present.tolist() == [False, True, True]


def vectors() -> tuple[list[str], np.ndarray]:
    return ["A", "C", "B"], np.arange(12).reshape(3, 4) / 8


@pytest.mark.parametrize("kind", ["npz", "npz bytes", "npy", "parquet list", "parquet columns"])
def test_every_kind_of_feature_file_gives_the_same_features(tmp_path, kind):
    item_ids, values = vectors()
    path = tmp_path / f"f.{kind.split()[0]}"
    if kind == "npz":
        np.savez(path, item_ids=item_ids, features=values.astype(np.float16))
    elif kind == "npz bytes":
        np.savez_compressed(path, item_ids=np.array([i.encode() for i in item_ids]), features=values)
    elif kind == "npy":
        np.save(path, values)
    elif kind == "parquet list":
        pd.DataFrame({"item_id": item_ids, "vector": list(values)}).to_parquet(path)
    else:
        pd.DataFrame(values, columns=list("wxyz")).assign(item_id=item_ids).to_parquet(path)
    features, unused = align(
        read_features(path, "item_id", np.array(item_ids)), np.array(["B", "X", "C"], dtype=object)
    )
    assert features.values.dtype == np.float32 and unused == 1
    assert features.values.tolist() == [values[2].tolist(), [0] * 4, values[1].tolist()]
    assert features.present.tolist() == [True, False, True]


def loop_core(pairs: list[tuple[int, int]], k: int) -> list[tuple[int, int]]:
    while True:
        users, items = [u for u, _ in pairs], [i for _, i in pairs]
        kept = [(u, i) for u, i in pairs if users.count(u) >= k and items.count(i) >= k]
        if kept == pairs:
            return kept
        pairs = kept


@pytest.mark.parametrize("k", [1, 2, 3, 4, 9])
def test_core_equals_a_loop(k):
    random = np.random.default_rng(k)
    users, items = random.integers(0, 25, 80), random.integers(0, 18, 80)
    kept = k_core(users, items, k)
    assert list(zip(users[kept], items[kept], strict=True)) == loop_core(list(zip(users, items, strict=True)), k)
    if k == 3:
        assert 0 < kept.sum() < 80


def test_core_cascades_to_the_end():
    """A chain in which each removal makes the next one necessary."""
    users, items = np.array([0, 1, 1, 2, 2, 3, 3]), np.array([0, 0, 1, 1, 2, 2, 3])
    assert not k_core(users, items, 2).any()


def test_indexing_equals_a_loop():
    random = np.random.default_rng(8)
    users, items = random.integers(0, 9, 70), random.integers(0, 13, 70)
    times = random.integers(0, 5, 70)
    names = [f"u{u}" for u in users], [f"i{i}" for i in items]
    found = index_interactions(np.array(names[0]), np.array(names[1]), times, core=5)
    kept = [n for n, pair in enumerate(k_core(users, items, 5)) if pair]
    assert 0 < len(kept) < 70
    wanted = {}
    for n in sorted(kept, key=lambda n: (times[n], n)):
        wanted.setdefault(names[0][n], []).append(names[1][n])
    parts = zip(found.user_ids, found.offsets[:-1], found.offsets[1:], strict=True)
    assert {u: found.item_ids[found.items[a:b]].tolist() for u, a, b in parts} == wanted
    assert found.user_ids.tolist() == sorted(wanted)
    assert found.item_ids.tolist() == sorted({i for h in wanted.values() for i in h})


def test_core_is_reported_and_can_leave_nothing(source, tmp_path):
    prepared = prepare_tabular(replaced(source, core=2, features={}), tmp_path / "a", "a")
    assert histories(prepared.dataset) == {"u1": ["C", "A", "D"], "u2": ["D", "C", "A"]}
    assert "2-core: kept 6 of 7 interactions" in prepared.notes
    with pytest.raises(InputError, match=r"no interactions.*lower --core"):
        prepare_tabular(replaced(source, core=9), tmp_path / "b", "b")
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize("ending", [".parquet", ".csv", ".tsv.gz"])
def test_a_table_of_many_batches_gives_the_same(tmp_path, monkeypatch, ending):
    generator = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "user_id": [f"u{n}" for n in generator.integers(0, 40, 900)],
            "item_id": generator.integers(0, 30, 900),
            "timestamp": pd.to_datetime(generator.integers(0, 10**9, 900), unit="s"),
        }
    )
    path = tmp_path / f"interactions{ending}"
    if ending == ".parquet":
        frame.astype({"user_id": "category"}).to_parquet(path, row_group_size=100)
    else:
        frame.to_csv(path, index=False, sep="," if ending == ".csv" else "\t")
    whole = read_columns(path, "user_id", "item_id", "timestamp")
    monkeypatch.setattr(tables, "ROWS", 70)
    monkeypatch.setattr(tables, "BYTES", 4000)
    assert len(list(tables.read_batches(path, ["user_id"]))) > 4
    parts = read_columns(path, "user_id", "item_id", "timestamp")
    for columns in (whole, parts):
        assert (columns.user_ids[columns.users] == frame["user_id"]).all()
        assert (columns.item_ids[columns.items] == frame["item_id"].astype(str)).all()
        assert (columns.times == frame["timestamp"].to_numpy()).all()
    frame.loc[777, "item_id"] = None
    if ending == ".csv":
        frame.to_csv(path, index=False)
        with pytest.raises(InputError, match="no item_id in data row 778"):
            read_columns(path, "user_id", "item_id", "timestamp")


def test_times_are_of_one_kind_in_all_batches(tmp_path, monkeypatch):
    path = tmp_path / "interactions.csv"
    rows = [f"u{n},i{n},{n}" for n in range(50)] + [f"u{n},i{n},2020-01-0{n + 1}" for n in range(9)] * 8
    path.write_text("\n".join(["user_id,item_id,timestamp", *rows]))
    monkeypatch.setattr(tables, "BYTES", 300)
    with pytest.raises(InputError, match="values that are not times"):
        read_columns(path, "user_id", "item_id", "timestamp")
