"""Every bad input ends in one line on stderr that names the thing and the remedy, exit status 2 and nothing written."""

import gzip
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from bbqrec.cli import main


@dataclass(frozen=True)
class Case:
    """`arguments` after `prepare tabular`, with {} for the folder; `spoil` makes the good files bad."""

    name: str
    spoil: Callable[[Path], object]
    said: tuple[str, ...]
    arguments: str = ""


def table(folder: Path, **changes) -> None:
    columns = {"user_id": list("aaabbb"), "item_id": list("xyzxyz"), "timestamp": list(range(6))}
    pd.DataFrame(columns | changes).to_csv(folder / "clicks.csv", index=False)


def vectors(folder: Path, values=None, item_ids=("x", "y"), **options) -> None:
    values = np.ones((2, 3)) if values is None else np.asarray(values)
    np.savez(folder / "text.npz", item_ids=np.array(item_ids, **options), features=values)


def nothing(folder: Path) -> None:
    pass


def write(name: str, content: bytes) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_bytes(content)


def parquet(name: str, **columns) -> Callable[[Path], object]:
    return lambda folder: pd.DataFrame(columns).to_parquet(folder / name)


def cut_parquet(folder: Path) -> None:
    pd.DataFrame({"user_id": ["a"]}).to_parquet(folder / "clicks.parquet")
    content = (folder / "clicks.parquet").read_bytes()
    (folder / "clicks.parquet").write_bytes(content[: len(content) // 2])


def cut_gzip(folder: Path) -> None:
    content = gzip.compress((folder / "clicks.csv").read_bytes() * 50)
    (folder / "clicks.csv.gz").write_bytes(content[: len(content) // 2])


def cut_npz(folder: Path) -> None:
    content = (folder / "text.npz").read_bytes()
    (folder / "text.npz").write_bytes(content[: len(content) // 2])


CASES = [
    Case("no table", lambda f: (f / "clicks.csv").unlink(), ("clicks.csv does not exist", "check the path")),
    Case("a folder as table", nothing, ("does not exist",), "--interactions {}"),
    Case("another format", write("clicks.xlsx", b"PK"), ("clicks.xlsx", "parquet"), "--interactions {}/clicks.xlsx"),
    Case("empty table", write("clicks.csv", b""), ("cannot read", "clicks.csv")),
    Case("only a header", write("clicks.csv", b"user_id,item_id,timestamp\n"), ("clicks.csv has no rows",)),
    Case(
        "ragged csv",
        write("clicks.csv", b"user_id,item_id,timestamp\na,b,1\na,b,1,2,3\n"),
        ("clicks.csv", "Expected 3 columns, got 5", "write the file again"),
    ),
    Case("binary csv", write("clicks.csv", bytes(range(128, 256))), ("cannot read", "clicks.csv")),
    Case("truncated parquet", cut_parquet, ("cannot read", "clicks.parquet"), "--interactions {}/clicks.parquet"),
    Case("text as parquet", write("c.parquet", b"user_id,item_id"), ("cannot read",), "--interactions {}/c.parquet"),
    Case("truncated gz", cut_gzip, ("cannot read", "clicks.csv.gz"), "--interactions {}/clicks.csv.gz"),
    Case("wrong column", nothing, ("no column 'who'", "user_id, item_id, timestamp"), "--user-column who"),
    Case("no time column", nothing, ("no column 'when'",), "--time-column when"),
    Case("one column twice", nothing, ("item_id, item_id", "three different"), "--user-column item_id"),
    Case("missing user", lambda f: table(f, user_id=["a", None, *"abbb"]), ("no user_id in data row 2",)),
    Case("times that are none", lambda f: table(f, timestamp=["noon"] * 6), ("'timestamp'", "not times", "ISO")),
    Case("missing time", lambda f: table(f, timestamp=[0, 1, None, 3, 4, 5]), ("no timestamp in data row 3",)),
    Case("short user", lambda f: table(f, user_id=list("aabbbb")), ("user a has fewer than 3", "--core 3")),
    Case("core leaves nothing", nothing, ("--core 9", "lower --core"), "--core 9"),
    Case("negative core", nothing, ("--core -3 is negative", "give 0"), "--core -3"),
    Case("no items table", nothing, ("items.csv does not exist",), "--items {}/items.csv"),
    Case(
        "items table without titles",
        write("items.csv", b"item_id,name\nx,X\n"),
        ("no column 'title'", "item_id, name"),
        "--items {}/items.csv",
    ),
    Case(
        "items table with an item twice",
        write("items.csv", b"item_id,title\nx,X\nx,Y\n"),
        ("lists item x more than once",),
        "--items {}/items.csv",
    ),
    Case(
        "items table without an ID", write("items.csv", b"item_id,title\n,X\n"), ("data row 1",), "--items {}/items.csv"
    ),
    Case("no feature file", lambda f: (f / "text.npz").unlink(), ("text.npz does not exist",)),
    Case("unknown modality", nothing, ("modality 'audio'", "text or image"), "--features audio={}/text.npz"),
    Case("no modality", nothing, ("NAME=VALUE", "as in text=vectors.npz"), "--features {}/text.npz"),
    Case("modality twice", nothing, ("text is given twice",), "--features text={}/text.npz text={}/text.npz"),
    Case("features of another format", write("t.json", b"{}"), ("t.json", ".npz"), "--features text={}/t.json"),
    Case("truncated npz", cut_npz, ("cannot read", "text.npz")),
    Case("empty npz", write("text.npz", b""), ("cannot read", "text.npz")),
    Case("npz without IDs", lambda f: np.savez(f / "text.npz", features=np.ones((2, 3))), ("no array 'item_ids'",)),
    Case("pickled IDs", lambda f: vectors(f, dtype=object), ("cannot read", "without pickling")),
    Case("NaN", lambda f: vectors(f, [[1, 2], [np.nan, 3]]), ("text.npz has NaN", "item y", "repair")),
    Case("infinite as float32", lambda f: vectors(f, [[1, 2], [1e300, 3]]), ("infinite", "item y")),
    Case("vector of no dimension", lambda f: vectors(f, [1.0, 2.0]), ("shape (2,)", "one numeric vector per item")),
    Case("three dimensions", lambda f: vectors(f, np.ones((2, 3, 4))), ("shape (2, 3, 4)",)),
    Case("text as vectors", lambda f: vectors(f, [["a"], ["b"]]), ("<U1", "numeric")),
    Case("more vectors than IDs", lambda f: vectors(f, np.ones((3, 2))), ("2 item IDs but 3 rows",)),
    Case(
        "IDs without an axis",
        lambda f: np.savez(f / "text.npz", item_ids=np.array("x"), features=np.ones((1, 3))),
        ("item IDs in", "shape ()"),
    ),
    Case("IDs in a table", lambda f: vectors(f, item_ids=[["x"], ["y"]]), ("item IDs in", "shape (2, 1)")),
    Case("item twice", lambda f: vectors(f, item_ids=("x", "x")), ("lists item x more than once",)),
    Case("no item in common", lambda f: vectors(f, item_ids=("p", "q")), ("no item of", "'p'", "'x'")),
    Case("no vectors", lambda f: vectors(f, np.ones((0, 3)), item_ids=()), ("no item of", "no rows")),
    Case(
        "npy without table", lambda f: np.save(f / "t.npy", np.ones((3, 2))), ("--items",), "--features text={}/t.npy"
    ),
    Case(
        "npy of another length",
        lambda f: (np.save(f / "t.npy", np.ones((3, 2))), (f / "items.csv").write_text("item_id,title\nx,X\n")),
        ("3 rows", "items table 1"),
        "--items {}/items.csv --features text={}/t.npy",
    ),
    Case(
        "parquet vectors of different widths",
        parquet("t.parquet", item_id=["x", "y"], v=[[1.0, 2.0], [1.0]]),
        ("1 values for item y", "give 2"),
        "--features text={}/t.parquet",
    ),
    Case(
        "parquet without the item column",
        parquet("t.parquet", asin=["x"], v=[1.0]),
        ("no column 'item_id'", "asin"),
        "--features text={}/t.parquet",
    ),
    Case(
        "parquet with text",
        parquet("t.parquet", item_id=["x"], v=[1.0], colour=["red"]),
        ("column 'colour'",),
        "--features text={}/t.parquet",
    ),
    Case("out is a file", write("out", b"x"), ("out exists and is not a data set folder", "another --out")),
    Case("out is below a file", nothing, ("cannot write", "writable --out"), "--out {}/clicks.csv/deep/out"),
    Case("out holds something else", lambda f: (f / "out" / "thesis").mkdir(parents=True), ("another --out",)),
]


def refused(arguments: list[str], capsys) -> str:
    """Run the command, which must fail as bad input does; the line that it says."""
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    said = capsys.readouterr().err
    assert stop.value.code == 2, said
    assert said.startswith("error: ") and said.count("\n") == 1 and said.endswith("\n"), said
    return said


def everything(folder: Path) -> dict[str, bytes]:
    return {str(p): p.read_bytes() if p.is_file() else b"" for p in folder.rglob("*")}


def tabular(folder: Path, arguments: str) -> list[str]:
    """The arguments with good ones for whatever they leave out."""
    words = arguments.replace("{}", str(folder)).split()
    good = {"--interactions": "clicks.csv", "--features": "text.npz", "--out": "out"}
    for flag, name in good.items():
        if flag not in words:
            words += [flag, f"text={folder / name}" if flag == "--features" else str(folder / name)]
    return ["prepare", "tabular", *words]


@pytest.fixture
def folder(tmp_path) -> Path:
    table(tmp_path)
    vectors(tmp_path)
    return tmp_path


def test_the_good_files_are_good(folder):
    main(tabular(folder, ""))
    assert (folder / "out" / "dataset.json").exists()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_bad_tables_and_features(folder, capsys, case):
    case.spoil(folder)
    before = everything(folder)
    said = refused(tabular(folder, case.arguments), capsys)
    for words in case.said:
        assert words in said
    assert everything(folder) == before


def test_a_failed_prepare_leaves_the_earlier_data_set(folder, capsys):
    main(tabular(folder, ""))
    vectors(folder, [[1, 2], [np.nan, 3]])
    before = everything(folder / "out")
    refused(tabular(folder, ""), capsys)
    assert everything(folder / "out") == before


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--users 0", "users=0"),
        ("--stay 1.5", "stay=1.5 is not a share"),
        ("--items 50", "50 items"),
        ("--zipf 1e9", "zipf=1000000000.0 is no exponent"),
        ("--zipf nan", "zipf=nan"),
        ("--noise-strength nan", "noise_strength=nan is not a length: give a value from 0 to 100"),
        ("--style-strength 1e30", "style_strength=1e+30"),
        ("--follow nan", "follow=nan is not a share"),
        ("--min-length 9 --mean-length 7", "min_length=9"),
    ],
)
def test_synthetic_options_that_make_no_sense(tmp_path, capsys, words, said):
    assert said in refused(["prepare", "synthetic", "--out", str(tmp_path / "out"), *words.split()], capsys)
    assert not everything(tmp_path)


def cut_reviews(folder: Path) -> None:
    (folder / "r.json.gz").write_bytes((folder / "r.json.gz").read_bytes()[:-9])


def cut_images(folder: Path) -> None:
    (folder / "i.b").write_bytes(b"B000000000" + bytes(4 * 4096 - 5))


@pytest.mark.parametrize(
    ("spoil", "words", "said"),
    [
        (nothing, "--category Toys", "reviews_Toys_5.json.gz does not exist: fetch it with `bbqrec download Toys`"),
        (nothing, "--no-text --no-image", "name the --category"),
        (nothing, "--reviews {}/none.json.gz", "none.json.gz does not exist"),
        (cut_reviews, "--reviews {}/r.json.gz --core 0 --no-text --no-image", "r.json.gz"),
        (write("r.json.gz", gzip.compress(b"{'a': 1}\n")), "--reviews {}/r.json.gz --no-text --no-image", "r.json.gz"),
        (write("r.json.gz", b"no gzip"), "--reviews {}/r.json.gz --no-text --no-image", "r.json.gz"),
        (nothing, "--reviews {}/r.json.gz --core 7 --no-text --no-image", "lower --core"),
        (nothing, "--reviews {}/r.json.gz --core -3 --no-text --no-image", "--core -3 is negative: give 0"),
        (nothing, "--reviews {}/r.json.gz --core 0 --no-text", "leave images out with --no-image"),
        (nothing, "--reviews {}/r.json.gz --core 0 --no-image", "leave the text out with --no-text"),
        (cut_images, "--reviews {}/r.json.gz --core 0 --no-text --images {}/i.b", "i.b"),
    ],
)
def test_bad_amazon_files(tmp_path, capsys, spoil, words, said):
    reviews = [{"reviewerID": u, "asin": f"B00000000{i}", "unixReviewTime": i} for u in "ab" for i in range(4)]
    (tmp_path / "r.json.gz").write_bytes(gzip.compress("".join(json.dumps(r) + "\n" for r in reviews).encode()))
    spoil(tmp_path)
    before = everything(tmp_path)
    words = f"prepare amazon --folder {{}} --out {{}}/out {words}".replace("{}", str(tmp_path))
    assert said in refused(words.split(), capsys)
    assert everything(tmp_path) == before


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("../Toys", "'../Toys' is no category: use one of"),
        ("Toys --sha256 1234", "as in reviews_Toys_and_Games_5.json.gz=SHA256"),
        ("Toys --site ftp://x", "give one that starts with https://"),
        ("Toys --sha256 reviews_Toys_5.json.gz=12", "give 64 hexadecimal digits"),
    ],
)
def test_bad_downloads(tmp_path, capsys, words, said):
    assert said in refused(["download", "--folder", str(tmp_path / "raw"), *words.split()], capsys)
    assert not everything(tmp_path)


SMALL = "--profile tiny --set quantizer.epochs=1 recommender.epochs=1 quantizer.kmeans_iterations=1"
SIZES = "--users 40 --items 80 --mean-length 6 --max-length 12 --values 2 2 2 2"


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> tuple[Path, str]:
    """A folder with two data sets, a store and the key of its one finished run."""
    root = tmp_path_factory.mktemp("trained")
    for name, seed in (("data", 0), ("other", 1)):
        main(f"prepare synthetic --out {root}/{name} --seed {seed} {SIZES}".split())
    main(f"train --dataset {root}/data --store {root}/store --method tiger {SMALL}".split())
    return root, next((root / "store" / "recommender").iterdir()).name


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--dataset {}/nowhere", "create one with `bbqrec prepare`"),
        ("--dataset {}/store", "is not a data set folder"),
        ("--dataset {}/data --method bbqrex", "unknown method 'bbqrex': did you mean bbqrec? known are bbqrec,"),
        ("--dataset {}/data --profile huge", "unknown profile 'huge': known are paper,"),
        (
            "--dataset {}/data --set quantizer.level=4",
            "QuantizerConfig has no field 'level' (override level='4'): did you mean levels?",
        ),
        ("--dataset {}/data --set quantiser.levels=4", "override quantiser.levels='4' names no field of a stage"),
        ("--dataset {}/data --set seed=7", "override seed='7' names no field of a stage: write quantizer.FIELD"),
        ("--dataset {}/data --set quantizer.levels=many", "QuantizerConfig.levels='many'"),
        ("--dataset {}/data --set quantizer.levels=2.5", "QuantizerConfig.levels="),
        ("--dataset {}/data --set quantizer.levels=0", "levels=0 must be at least 1"),
        ("--dataset {}/data --set quantizer.shared=perhaps", "QuantizerConfig.shared='perhaps'"),
        ("--dataset {}/data --set recommender.history=long", "use one of prefix, packed"),
        ("--dataset {}/data --set levels", "'levels' is not of the form NAME=VALUE"),
        ("--dataset {}/data --set quantizer.epochs", "write it without spaces, as in recommender.epochs=3"),
        ("--dataset {}/data --seed -1", "seed=-1 is negative"),
        ("--dataset {}/data --store {}/data/dataset.json/store", "dataset.json"),
        ("--dataset {}/data --store fly://bucket/runs", "fly"),
    ],
)
def test_train_refuses(trained, capsys, words, said):
    before = everything(trained[0])
    if "--store" not in words:
        words += " --store {}/new"
    assert said in refused(["train", *words.replace("{}", str(trained[0])).split()], capsys)
    assert everything(trained[0]) == before


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("evaluate --store {}/nowhere --run KEY", "nowhere does not exist"),
        (
            "evaluate --store {}/store --run 0123456789abcdef",
            "no finished run '0123456789abcdef': use one of KEY (data, seed 0)",
        ),
        ("evaluate --store {}/store --run ../data", "no finished run '../data'"),
        ("evaluate --store {}/data --run KEY", "train one with `bbqrec train`"),
        ("recommend --store {}/store --run nope --dataset {}/data --user U00", "no finished run 'nope'"),
        (
            "recommend --store {}/store --run KEY --dataset {}/data --user Nobody",
            "user 'Nobody' is not in data set data",
        ),
        ("recommend --store {}/store --run KEY --dataset {}/data --user U00 -k 0", "k=0 is too small: give at least 1"),
        ("recommend --store {}/store --run KEY --dataset {}/other --user U00", "give the data set folder"),
        ("recommend --store {}/store --run KEY --dataset {}/nowhere --user U00", "create one with `bbqrec prepare`"),
    ],
)
def test_evaluate_and_recommend_refuse(trained, capsys, words, said):
    root, key = trained
    before = everything(root)
    filled = words.replace("{}", str(root)).replace("KEY", key)
    assert said.replace("KEY", key) in refused(filled.split(), capsys)
    assert everything(root) == before


@pytest.mark.parametrize(
    ("file", "words"),
    [
        ("ranks_test.npy", "evaluate --store {}/store --run KEY"),
        ("row.json", "evaluate --store {}/store --run KEY"),
        ("model.safetensors", "recommend --store {}/store --run KEY --dataset {}/data --user U00"),
    ],
)
def test_damaged_artefacts(trained, tmp_path, capsys, file, words):
    root, key = trained
    shutil.copytree(root, tmp_path / "copy")
    path = next((tmp_path / "copy" / "store" / "recommender" / key).rglob(file))
    content = bytearray(path.read_bytes())
    content[-2] ^= 1
    path.write_bytes(content)
    said = refused(words.replace("{}", str(tmp_path / "copy")).replace("KEY", key).split(), capsys)
    assert file in said and "damaged" in said and "again" in said


@pytest.mark.parametrize("file", ["interactions.parquet", "features_text.npy", "dataset.json"])
def test_damaged_data_sets(trained, tmp_path, capsys, file):
    shutil.copytree(trained[0] / "data", tmp_path / "data")
    path = tmp_path / "data" / file
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    said = refused(["train", "--dataset", str(tmp_path / "data"), "--store", str(tmp_path / "store")], capsys)
    assert "is damaged" in said and "bbqrec prepare" in said
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize("words", ["", "prepare", "prepare tabular", "prepare synthetic --out x --users many", "fly"])
def test_words_that_are_no_command(capsys, words):
    with pytest.raises(SystemExit) as stop:
        main(words.split())
    assert stop.value.code == 2 and capsys.readouterr().err


def test_the_real_command(folder):
    """Once as a user starts it: the exit status and the line pass through the interpreter."""
    vectors(folder, [[1, 2], [np.nan, 3]])
    code = "from bbqrec.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, *tabular(folder, "")], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.count("\n") == 1 and "item y" in done.stderr
    assert not (folder / "out").exists()
