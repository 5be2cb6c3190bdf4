"""A data set in which every user's last two items belong to nobody else: seeing one in training is a leak."""

import numpy as np

from bbqrec.schema import Dataset, Features

LENGTHS = (3, 4, 5, 7, 9, 12, 6, 6, 3, 8)
SHARED_ITEMS = 17


def held_out_dataset() -> Dataset:
    """Items 0..16 are the training items; user u's validation item is 17 + 2 u, the test item 18 + 2 u."""
    generator = np.random.default_rng(12)
    histories = [
        [*generator.integers(0, SHARED_ITEMS, length - 2).tolist(), SHARED_ITEMS + 2 * u, SHARED_ITEMS + 2 * u + 1]
        for u, length in enumerate(LENGTHS)
    ]
    items = SHARED_ITEMS + 2 * len(LENGTHS)
    features = {}
    for name, width in (("text", 6), ("image", 5)):
        present = generator.random(items) > 0.2
        values = generator.normal(size=(items, width)).astype(np.float32) * present[:, None]
        features[name] = Features(values=values, present=present)
    return Dataset(
        name="held-out",
        fingerprint="0123456789abcdef" * 4,
        user_ids=np.array([f"u{u}" for u in range(len(LENGTHS))], dtype=object),
        item_ids=np.array([f"i{i}" for i in range(items)], dtype=object),
        titles=np.array([f"title {i}" for i in range(items)], dtype=object),
        offsets=np.concatenate([[0], np.cumsum(LENGTHS)]),
        items=np.concatenate(histories),
        features=features,
    )


def histories_of(dataset: Dataset) -> list[list[int]]:
    pairs = zip(dataset.offsets[:-1], dataset.offsets[1:], strict=True)
    return [dataset.items[a:b].tolist() for a, b in pairs]
