"""The split, the training windows, the batches and the folder, against loops and planted damage."""

import dataclasses
import itertools
import json
import shutil

import numpy as np
import pytest
import torch

from bbqrec.data import (
    batches,
    evaluation_part,
    load_dataset,
    save_dataset,
    statistics,
    training_part,
    training_windows,
)
from bbqrec.errors import InputError
from bbqrec.schema import PAD, Dataset, Features


def dataset_of(histories: list[list[int]], folder, features: dict[str, Features] | None = None) -> Dataset:
    count = 1 + max(max(h) for h in histories)
    return save_dataset(
        folder,
        name="small",
        source="test",
        user_ids=np.array([f"u{u}" for u in range(len(histories))], dtype=object),
        item_ids=np.array([f"i{i}" for i in range(count)], dtype=object),
        titles=np.array([f"title {i}" for i in range(count)], dtype=object),
        offsets=np.concatenate([[0], np.cumsum([len(h) for h in histories])]),
        items=np.concatenate(histories),
        features=features or {},
    )


@pytest.fixture
def histories() -> list[list[int]]:
    """Lengths 3..60, no item twice in a user, so that an item names its place."""
    generator = np.random.default_rng(3)
    return [generator.permutation(70)[:n].tolist() for n in (3, 4, 5, 9, 13, 14, 22, 23, 24, 37, 60)]


def rows(sequences) -> list[list[int]]:
    pairs = zip(sequences.offsets[:-1], sequences.offsets[1:], strict=True)
    return [sequences.items[a:b].tolist() for a, b in pairs]


def test_training_part_lacks_the_last_two_items(histories, tmp_path):
    assert rows(training_part(dataset_of(histories, tmp_path / "d"))) == [h[:-2] for h in histories]


@pytest.mark.parametrize("longest", [None, 1, 6, 100])
def test_evaluation_part(histories, tmp_path, longest):
    dataset = dataset_of(histories, tmp_path / "d")
    keep = slice(None) if longest is None else slice(-longest, None)
    valid, test = (evaluation_part(dataset, split, longest) for split in ("valid", "test"))
    assert valid.targets.tolist() == [h[-2] for h in histories]
    assert test.targets.tolist() == [h[-1] for h in histories]
    assert rows(valid.histories) == [h[:-2][keep] for h in histories]
    assert rows(test.histories) == [h[:-1][keep] for h in histories]
    assert valid.histories.lengths.tolist() == [len(h) for h in rows(valid.histories)]


@pytest.mark.parametrize("longest", [1, 2, 3, 7, 10, 20, 80])
def test_windows_count_every_training_target_once_with_enough_history(histories, tmp_path, longest):
    windows = training_windows(dataset_of(histories, tmp_path / "d"), longest)
    assert windows.items.shape[1] == longest + 1 and windows.counted.shape[1] == longest
    wanted = [(h[j - 1], h[j]) for h in histories for j in range(1, len(h) - 2)]
    rows_, places = np.nonzero(windows.counted)
    found = list(zip(windows.items[rows_, places], windows.items[rows_, places + 1], strict=True))
    assert sorted(found) == sorted(wanted)
    parts = [h[:-2] for h in histories]
    for row, counted in zip(windows.items, windows.counted, strict=True):
        real = row[row != PAD].tolist()
        assert row.tolist() == real + [PAD] * (longest + 1 - len(real))
        assert any(real == p[a : a + len(real)] for p in parts for a in range(len(p)))
        first = any(real == p[: len(real)] for p in parts)
        assert counted.any()
        assert first or np.flatnonzero(counted)[0] + 1 >= longest // 2


def test_windows_overlap_no_more_than_needed(tmp_path):
    windows = training_windows(dataset_of([list(range(43))], tmp_path / "d"), 20)
    assert [row[0] for row in windows.items] == [0, 11, 20]


def test_validation_and_test_items_are_in_no_training_window(histories, tmp_path):
    disjoint = [[100 * u + i for i in range(len(h))] for u, h in enumerate(histories)]
    windows = training_windows(dataset_of(disjoint, tmp_path / "d"), 5)
    held = {i for h in disjoint for i in h[-2:]}
    assert not held & set(windows.items.ravel().tolist())
    assert {i for h in disjoint for i in h[:-2] if len(h) > 3} == set(windows.items.ravel().tolist()) - {PAD}


@pytest.mark.parametrize(("count", "size"), [(1, 4), (103, 10), (40, 40), (41, 40), (7, 100)])
def test_batches_hold_every_row_once_and_are_alike(count, size):
    lengths = np.random.default_rng(0).integers(1, 21, count)
    for generator in (None, torch.Generator().manual_seed(5)):
        cut = batches(lengths, size, generator)
        assert sorted(np.concatenate(cut).tolist()) == list(range(count))
        sizes = [len(b) for b in cut]
        assert max(sizes) <= size and max(sizes) - min(sizes) <= 1
        ranges = sorted((lengths[b].min(), lengths[b].max()) for b in cut)
        assert all(high <= low for (_, high), (low, _) in itertools.pairwise(ranges))


def test_batches_are_shuffled_by_the_generator_only():
    lengths = np.random.default_rng(1).integers(1, 5, 200)
    one, same, other = (batches(lengths, 16, torch.Generator().manual_seed(s)) for s in (1, 1, 2))
    assert all((a == b).all() for a, b in zip(one, same, strict=True))
    assert np.concatenate(one).tolist() != np.concatenate(other).tolist()
    means = [lengths[b].mean() for b in one]
    assert means != sorted(means)
    plain = batches(lengths, 16, None)
    assert (np.diff(lengths[np.concatenate(plain)]) >= 0).all()
    assert [b.tolist() for b in plain] == [b.tolist() for b in batches(lengths, 16, None)]


def test_no_rows_make_no_batches():
    assert batches(np.zeros(0, dtype=np.int64), 4, None) == []


@pytest.fixture
def folder(histories, tmp_path):
    generator = np.random.default_rng(4)
    features = {
        "text": Features(values=generator.normal(size=(70, 5)), present=np.ones(70, dtype=bool)),
        "image": Features(values=generator.normal(size=(70, 3)).astype(np.float16), present=np.arange(70) % 7 > 0),
    }
    dataset_of(histories, tmp_path / "data", features)
    return tmp_path / "data"


def test_a_folder_reads_back_as_it_was_written(folder, histories):
    dataset = load_dataset(folder)
    assert rows(dataset) == histories
    assert dataset.user_ids[10] == "u10" and dataset.item_ids[69] == "i69" and dataset.titles[69] == "title 69"
    assert {m: f.values.shape for m, f in dataset.features.items()} == {"text": (70, 5), "image": (70, 3)}
    assert all(f.values.dtype == np.float32 for f in dataset.features.values())
    image = dataset.features["image"]
    assert not image.present[[0, 7, 63]].any() and not image.values[[0, 7, 63]].any() and image.values[1].all()
    assert statistics(dataset) == {
        "users": 11, "items": 70, "interactions": 214, "texts": 70, "images": 60, "average length": 214 / 11,
    }  # fmt: skip
    header = json.loads((folder / "dataset.json").read_text())
    assert header["fingerprint"] == dataset.fingerprint and header["modalities"]["image"] == {"width": 3, "present": 60}


def test_the_fingerprint_depends_on_every_part_and_on_nothing_else(folder, tmp_path):
    dataset = load_dataset(folder)
    image = dataset.features["image"]

    def fingerprint(name="small", **changed):
        data = dataclasses.replace(dataset, **changed)
        parts = {
            f.name: getattr(data, f.name) for f in dataclasses.fields(data) if f.name not in ("name", "fingerprint")
        }
        return save_dataset(tmp_path / name, name=name, source=name, **parts).fingerprint

    assert fingerprint() == fingerprint("another") == dataset.fingerprint
    nudged = image.values.copy()
    nudged[1, 2] = np.nextafter(nudged[1, 2], np.float32(9))
    swapped = dataset.items.copy()
    swapped[:2] = swapped[1::-1]
    shifted = dataset.offsets.copy()
    shifted[2] += 1
    changed = [
        fingerprint(items=swapped),
        fingerprint(offsets=shifted),
        fingerprint(titles=np.where(dataset.titles == "title 3", "x", dataset.titles)),
        fingerprint(item_ids=np.where(dataset.item_ids == "i3", "x", dataset.item_ids)),
        fingerprint(user_ids=np.where(dataset.user_ids == "u3", "x", dataset.user_ids)),
        fingerprint(features={**dataset.features, "image": Features(values=nudged, present=image.present)}),
        fingerprint(features={"text": dataset.features["text"]}),
        fingerprint(features={"image": dataset.features["text"]}),
    ]
    assert len({dataset.fingerprint, *changed}) == 1 + len(changed)


@pytest.mark.parametrize("name", ["interactions.parquet", "items.parquet", "features_text.npy", "present_image.npy"])
@pytest.mark.parametrize("harm", ["missing", "cut", "flipped"])
def test_damage_is_found(folder, name, harm):
    file = folder / name
    content = bytearray(file.read_bytes())
    if harm == "missing":
        file.unlink()
    elif harm == "cut":
        file.write_bytes(content[: len(content) // 2])
    else:
        content[-7 if name.endswith(".npy") else 40] ^= 1
        file.write_bytes(content)
    with pytest.raises(InputError, match=f"data set {folder} is damaged"):
        load_dataset(folder)


def test_without_verification_only_the_contents_are_trusted(folder):
    values = np.load(folder / "features_text.npy")
    np.save(folder / "features_text.npy", values + 1)
    assert load_dataset(folder, verify=False).features["text"].values[0, 0] == values[0, 0] + 1


def test_other_formats_and_other_folders_are_refused(folder, tmp_path):
    header = json.loads((folder / "dataset.json").read_text())
    (folder / "dataset.json").write_text(json.dumps({**header, "format": 7}))
    with pytest.raises(InputError, match="format 7"):
        load_dataset(folder)
    with pytest.raises(InputError, match=r"no dataset\.json"):
        load_dataset(tmp_path / "nowhere")


def test_writing_replaces_a_data_set_but_nothing_else(folder, histories, tmp_path):
    dataset_of(histories[:4], folder)
    assert load_dataset(folder).num_users == 4
    assert not (folder / "features_text.npy").exists()
    other = tmp_path / "thesis"
    shutil.copytree(folder, other)
    (other / "dataset.json").unlink()
    with pytest.raises(InputError, match="not a data set folder"):
        dataset_of(histories, other)
    assert (other / "users.parquet").exists()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["data", "thesis"]


def test_short_users_and_bad_features_leave_nothing_behind(histories, tmp_path):
    with pytest.raises(InputError, match=r"user u1 has fewer than 3 items .*1 other"):
        dataset_of([[0, 1, 2], [3, 4], [5, 6]], tmp_path / "d")
    values = np.ones((70, 2), dtype=np.float32)
    values[33, 1] = np.inf
    with pytest.raises(InputError, match="text features of item i33"):
        dataset_of(histories, tmp_path / "d", {"text": Features(values=values, present=np.ones(70, dtype=bool))})
    assert list(tmp_path.iterdir()) == []
