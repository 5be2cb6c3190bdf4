"""The real Amazon data sets, where BBQREC_SHARED names them: the counts of Table 1 and what the split makes of them."""

import numpy as np
import pytest

from bbqrec.cli import main
from bbqrec.data import load_dataset, training_windows

COUNTS = {  # users, items, interactions of Table 1 (Toys: its printed 169,597 contradicts its own average length)
    "toys": (19_412, 11_924, 167_597),
    "beauty": (22_363, 12_101, 198_502),
    "clothing": (39_387, 23_033, 278_677),
}
IMAGES = {"toys": 11_907, "beauty": 0, "clothing": 16_384}


@pytest.mark.parametrize("name", COUNTS)
def test_prepared_as_in_table_1(name, shared_data, tmp_path, capsys):
    raw = shared_data / name
    features = [f"text={raw / 'text_minilm.npz'}"]
    if IMAGES[name]:
        features.append(f"image={raw / 'image_clip.npz'}")
    tables = ["--interactions", str(raw / "interactions.parquet"), "--items", str(raw / "items.parquet")]
    main(["prepare", "tabular", *tables, "--features", *features, "--out", str(tmp_path / name)])
    dataset = load_dataset(tmp_path / name)
    users, items, interactions = COUNTS[name]
    assert (dataset.num_users, dataset.num_items, len(dataset.items)) == (users, items, interactions)
    assert dataset.features["text"].present.all()
    images = dataset.features["image"].present.sum() if "image" in dataset.features else 0
    assert images == IMAGES[name]
    assert f"{interactions:,}" in capsys.readouterr().out
    # Every training item of a user but the first is a target, once.
    windows = training_windows(dataset, 20)
    assert windows.counted.sum() == interactions - 3 * users
    held_out = np.zeros(len(dataset.items), dtype=bool)
    held_out[dataset.offsets[1:] - 1] = held_out[dataset.offsets[1:] - 2] = True
    targets = np.bincount(windows.items[:, 1:][windows.counted], minlength=items)
    first = np.bincount(dataset.items[dataset.offsets[:-1]], minlength=items)
    np.testing.assert_array_equal(targets, np.bincount(dataset.items[~held_out], minlength=items) - first)
