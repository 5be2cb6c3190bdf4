"""The official files of a category, written here in a few rows, -> the same data set whichever way they come."""

import gzip
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.progress import Progress

from bbqrec.data import load_dataset
from bbqrec.datasets import amazon
from bbqrec.datasets.amazon import AmazonSource, prepare_amazon
from bbqrec.datasets.amazon_files import IMAGE_RECORD, read_images, read_meta, read_reviews
from bbqrec.errors import InputError

A, B, C, D, ELSEWHERE = "000000000A", "B00000000B", "B00000000C", "B00000000D", "B00000000Z"
ROWS = [  # users and items not in order, ties in time
    ("u2", C, 1300000000), ("u1", A, 1400000000), ("u2", A, 1300000000), ("u1", C, 1200000000), ("u2", D, 1250000000),
    ("u1", B, 1400000000), ("u1", D, 1400000000),
]  # fmt: skip
ORDERED = {"u1": [C, A, B, D], "u2": [D, C, A]}
METAS = [  # as Python 2 wrote them: single quotes, double ones around an apostrophe, keys in any order, u''
    {"asin": ELSEWHERE, "title": "not in the reviews"},
    {"categories": [["Toys", "Cars"]], "description": f'Fits\n "asin": "{ELSEWHERE}"', "asin": D, "price": 3},
    {"asin": A, "title": "Tom &amp; Jerry's  car", "related": {"also_bought": [B, ELSEWHERE]}, "description": "Red."},
    {"asin": C, "title": "", "imUrl": "http://example.org/c.jpg"},
    {"asin": A, "title": "the second of this item does not count"},
]  # fmt: skip
TEXTS = {A: "Tom & Jerry's car Red.", D: f'Fits "asin": "{ELSEWHERE}"'}


def write_gz(path: Path, lines: list[str]) -> Path:
    path.write_bytes(gzip.compress("".join(f"{line}\n" for line in lines).encode()))
    return path


def review(user: str, item: str, time: object) -> str:
    return json.dumps({"reviewerID": user, "asin": item, "reviewText": "it's {'fine'}", "unixReviewTime": time})


def image(value: float) -> np.ndarray:
    return np.arange(4096, dtype=np.float32) + np.float32(value)


def write_images(path: Path, images: dict[str, np.ndarray]) -> Path:
    path.write_bytes(b"".join(asin.encode() + vector.astype("<f4").tobytes() for asin, vector in images.items()))
    return path


@pytest.fixture
def source(tmp_path) -> AmazonSource:
    raw = tmp_path / "raw"
    raw.mkdir()
    write_gz(raw / "reviews_Beauty_5.json.gz", [review(*row) for row in ROWS])
    write_gz(raw / "meta_Beauty.json.gz", [repr(meta) for meta in METAS])
    write_images(raw / "image_features_Beauty.b", {ELSEWHERE: image(9), D: image(4), A: image(0.5)})
    return AmazonSource(category="Beauty", folder=raw, core=0)


@pytest.fixture
def told(monkeypatch) -> list[list[str]]:
    """Stands in for the text model: a vector is (length, 1); remembers what it was given."""
    batches: list[list[str]] = []

    def embed(texts, encoder, batch_size, advance):
        batches.append(texts)
        return np.array([[len(text), 1] for text in texts], dtype=np.float32).reshape(-1, 2)

    monkeypatch.setattr(amazon, "load_encoder", lambda model, device: None if model == "none" else object())
    monkeypatch.setattr(amazon, "embed", embed)
    return batches


def test_the_whole_category(source, told, tmp_path):
    prepared = prepare_amazon(source, tmp_path / "out", "beauty")
    dataset = load_dataset(tmp_path / "out")
    assert dataset.name == "beauty" and dataset.fingerprint == prepared.dataset.fingerprint
    assert list(dataset.item_ids) == [A, B, C, D] and list(dataset.user_ids) == ["u1", "u2"]
    for user, expected in enumerate(ORDERED.values()):
        ordered = dataset.items[dataset.offsets[user] : dataset.offsets[user + 1]]
        assert [dataset.item_ids[i] for i in ordered] == expected
    assert list(dataset.titles) == ["Tom & Jerry's car", "", "", ""]
    assert told == [[TEXTS[A], TEXTS[D]]]
    text, images = dataset.features["text"], dataset.features["image"]
    assert text.present.tolist() == images.present.tolist() == [True, False, False, True]
    assert text.values.tolist() == [[len(TEXTS[A]), 1], [0, 0], [0, 0], [len(TEXTS[D]), 1]]
    np.testing.assert_array_equal(images.values, [image(0.5), 0 * image(0), 0 * image(0), image(4)])
    assert "2 of 4 items have no image" in prepared.notes and "2 of 4 items have no text" in prepared.notes


def test_the_full_reviews_filtered_here_equal_the_5_core_file(source, tmp_path):
    dense = [(f"v{u}", f"B0000000{i:02}", 100 * u + (7 * i) % 5) for u in range(6) for i in range(5)]
    # A chain: w0 has four, and every other user and item of it five, but only with the link before.
    chain = [(f"w{n}", f"B0000000{i:02}", i) for n in range(5) for i in range(3 if n < 4 else 4)]
    chain += [(user, f"B00000010{n}", 9) for n in range(4) for user in (f"w{n}", f"w{n + 1}", "v0", "v1", "v2")]
    shuffled = np.random.default_rng(3).permutation(len(dense) + len(chain))
    rows = [(dense + chain)[i] for i in shuffled]
    small = replace(source, reviews=tmp_path / "reviews_small_5.json.gz", core=5, text=False, image=False)
    full = replace(small, category="Toys_and_Games", reviews=None, meta=source.folder / "meta_Beauty.json.gz")
    write_gz(small.reviews, [review(*row) for row in rows if row in dense])
    write_gz(source.folder / "reviews_Toys_and_Games.json.gz", [review(*row) for row in rows])
    write_gz(source.folder / "meta_Beauty.json.gz", [repr({"asin": "B000000001", "title": "one"})])
    official = prepare_amazon(small, tmp_path / "small", "x")
    filtered = prepare_amazon(full, tmp_path / "full", "x")
    assert official.dataset.num_users == 6 and official.notes == ()
    assert filtered.dataset.fingerprint == official.dataset.fingerprint
    assert filtered.notes == (f"5-core: kept 30 of {len(rows)} reviews",)


def test_uncompressed_files_and_json_meta_mean_the_same(source, told, tmp_path):
    first = prepare_amazon(source, tmp_path / "first", "x").dataset
    plain = replace(source, reviews=tmp_path / "reviews.json", meta=tmp_path / "meta.json")
    plain.reviews.write_text("\n".join(review(*row) for row in ROWS) + "\n\n")
    plain.meta.write_text("\n".join(json.dumps(meta) for meta in METAS))
    assert prepare_amazon(plain, tmp_path / "second", "x").dataset.fingerprint == first.fingerprint


def test_precomputed_features_take_the_place_of_embedding_and_images(source, tmp_path):
    np.savez(tmp_path / "text.npz", item_ids=np.array([B, "Q"]), features=np.ones((2, 3), dtype=np.float16))
    np.savez(tmp_path / "clip.npz", item_ids=np.array([C, A, D]), features=np.eye(3, 7, dtype=np.float32))
    given = replace(source, text_features=tmp_path / "text.npz", images=tmp_path / "clip.npz")
    (source.folder / "meta_Beauty.json.gz").unlink()
    prepared = prepare_amazon(given, tmp_path / "out", "x")
    features = prepared.dataset.features
    assert features["text"].values.shape == (4, 3) and features["text"].present.tolist() == [False, True, False, False]
    assert features["image"].values.argmax(axis=1).tolist() == [1, 0, 0, 2]
    assert "no meta file, so no titles" in prepared.notes
    assert any("text.npz: 1 items are not in the data set" in note for note in prepared.notes)


def test_without_modalities(source, tmp_path):
    np.savez(tmp_path / "text.npz", item_ids=np.array([B]), features=np.ones((1, 3)))
    without = replace(source, text=False, text_features=tmp_path / "text.npz", image=False)
    bare = prepare_amazon(without, tmp_path / "out", "x").dataset
    assert dict(bare.features) == {} and bare.titles[0] == "Tom & Jerry's car"


def test_images_are_streamed_in_pieces(tmp_path):
    many = {f"B{n:09}": image(n) for n in range(600)}  # more than two pieces
    path = write_images(tmp_path / "many.b", many)
    path.write_bytes(path.read_bytes() + b"B000000003" + image(-1).tobytes())  # of several the first counts
    wanted = np.array(["B000000599", "B000000003", "nothing", "B000000256"], dtype=object)
    found = read_images(path, wanted, Progress(disable=True))
    assert found.present.tolist() == [True, True, False, True]
    np.testing.assert_array_equal(found.values[[0, 1, 3]], [image(599), image(3), image(256)])
    write_images(path, many | {"B000000599": image(np.nan)})
    with pytest.raises(InputError, match=r"record 600 of .*many\.b, B000000599, is not finite"):
        read_images(path, wanted, Progress(disable=True))


def test_halves_of_surrogate_pairs_do_not_reach_the_data_set(source, tmp_path):
    write_gz(source.folder / "meta_Beauty.json.gz", [f"{{'asin': '{A}', 'title': u'" + r"a\ud83d\ude00b \ud83d c'}"])
    dataset = prepare_amazon(replace(source, text=False, image=False), tmp_path / "out", "x").dataset
    assert dataset.titles[0].startswith("a\U0001f600b ") and dataset.titles[0].encode()


def reviews_of(lines: list[str]):
    return lambda raw: write_gz(raw / "reviews_Beauty_5.json.gz", lines)


def meta_of(lines: list[str]):
    return lambda raw: write_gz(raw / "meta_Beauty.json.gz", lines)


def cut(name: str, size: int):
    return lambda raw: (raw / name).write_bytes((raw / name).read_bytes()[:size])


def images_of(change):
    def write(raw: Path) -> None:
        records = np.fromfile(raw / "image_features_Beauty.b", IMAGE_RECORD)
        change(records)
        records.tofile(raw / "image_features_Beauty.b")

    return write


def misaligned(records: np.ndarray) -> None:
    records["asin"][1] = b"\0" + records["asin"][1][:-1]


def not_finite(records: np.ndarray) -> None:
    records["values"][2, 17] = np.nan


GOOD = [review(*row) for row in ROWS]
REVIEWS, META, IMAGES = "reviews_Beauty_5.json.gz", "meta_Beauty.json.gz", "image_features_Beauty.b"
BAD = {
    "no reviews file": (lambda raw: (raw / REVIEWS).unlink(), "reviews_Beauty_5.*bbqrec download Beauty"),
    "no meta file": (lambda raw: (raw / META).unlink(), "meta_Beauty.*bbqrec download.*--no-text"),
    "no image file": (lambda raw: (raw / IMAGES).unlink(), r"image_features_Beauty\.b.*--no-image"),
    "empty": (reviews_of([]), "reviews_Beauty_5.*holds no reviews"),
    "no bytes": (cut(REVIEWS, 0), "holds no reviews"),
    "truncated reviews": (cut(REVIEWS, 90), "reviews_Beauty_5.*cut off or damaged.*download it again"),
    "truncated meta": (cut(META, 150), "meta_Beauty.*cut off or damaged"),
    "no gzip": (lambda raw: (raw / REVIEWS).write_text("{}"), "reviews_Beauty_5.*cut off or damaged"),
    "half a line": (reviews_of([*GOOD[:2], GOOD[2][:40], *GOOD[3:]]), "line 3 of .*reviews_Beauty_5.*neither a JSON"),
    "no record": (reviews_of([*GOOD, "[1, 2]"]), "line 8 of .*no record in braces"),
    "no UTF-8": (lambda raw: (raw / REVIEWS).write_bytes(gzip.compress(b'{"\xff": 1}')), "line 1 of .*neither a JSON"),
    "code": (reviews_of(["{'asin': __import__('os').getcwd()}"]), "line 1 of .*neither a JSON"),
    "deep nesting": (reviews_of(["[" * 100_000]), "line 1 of .*neither a JSON"),
    "no user": (reviews_of([*GOOD, '{"asin": "B00000000B", "unixReviewTime": 3}']), "line 8 of .*no valid reviewerID"),
    "item of another type": (reviews_of([review("u1", 3, 4)]), "line 1 of .*no valid asin"),
    "no time": (reviews_of([GOOD[0], review("u1", B, "12 1, 2013")]), "line 2 of .*no valid unixReviewTime"),
    "infinite time": (reviews_of([review("u1", B, float("inf"))]), "line 1 of .*no valid unixReviewTime"),
    "huge time": (reviews_of([review("u1", B, 10**30)]), "line 1 of .*no valid unixReviewTime"),
    "short user": (reviews_of([*GOOD, review("u3", A, 1)]), "user u3 has fewer than 3 items"),
    "half a meta line": (meta_of([repr(METAS[0]), repr(METAS[2])[:60]]), "line 2 of .*meta_Beauty.*neither a JSON"),
    "meta without asin": (meta_of([repr(METAS[0]), "{'title': 'x'}"]), "line 2 of .*meta_Beauty.*no valid asin"),
    "title of another type": (meta_of([f"{{'asin': '{A}', 'title': 3}}"]), "title in line 1 of .*meta_Beauty"),
    "meta of another category": (meta_of([repr(METAS[0])]), "meta_Beauty.*knows no item"),
    "truncated images": (cut(IMAGES, 3 * 16394 - 1), "image_features_Beauty.*cut off in record 3"),
    "misaligned images": (images_of(misaligned), "record 2 of .*does not start with an ASIN"),
    "NaN": (images_of(not_finite), f"record 3 of .*{A}, is not finite"),
    "images of another category": (cut(IMAGES, 16394), "image_features_Beauty.*knows no item"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_files_end_in_one_line_and_no_output(source, told, tmp_path, case):
    spoil, message = BAD[case]
    spoil(source.folder)
    with pytest.raises(InputError, match=message) as caught:
        prepare_amazon(source, tmp_path / "out", "x")
    assert "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["raw"]


def test_bad_arguments(source, told, tmp_path):
    for change, message in (
        ({"category": None}, "no reviews_<Category>_5.json.gz given: name the --category"),
        ({"category": "Toys"}, "reviews_Toys_5.*bbqrec download Toys"),
        ({"reviews": tmp_path / "r.json.gz"}, r"r\.json\.gz does not exist"),
        ({"text_features": tmp_path / "t.npz"}, r"t\.npz does not exist"),
        ({"core": 5}, "nothing is left of .*5-core"),
    ):
        with pytest.raises(InputError, match=message):
            prepare_amazon(replace(source, **change), tmp_path / "out", "x")
    assert not (tmp_path / "out").exists()


def test_readers_by_themselves(source):
    progress = Progress(disable=True)
    users, items, times = read_reviews(source.folder / "reviews_Beauty_5.json.gz", progress)
    assert list(zip(users, items, times.tolist(), strict=True)) == ROWS
    titles, texts = read_meta(source.folder / "meta_Beauty.json.gz", np.array([D, A], dtype=object), progress)
    assert list(titles) == ["", "Tom & Jerry's car"] and list(texts) == [TEXTS[D], TEXTS[A]]
