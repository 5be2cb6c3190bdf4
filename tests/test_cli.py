"""The commands as a user strings them together, on a data set of seconds."""

import json
import re
import subprocess
import sys

import numpy as np
import pytest

from bbqrec.cli import epoch_line, main
from bbqrec.data import load_dataset
from bbqrec.methods import METHODS
from bbqrec.schema import EpochReport

SIZES = "--users 50 --items 90 --mean-length 6 --max-length 12 --values 2 2 2 2"
SMALL = "--profile tiny --set quantizer.epochs=2 recommender.epochs=2 recommender.beam=12 quantizer.kmeans_iterations=1"


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cli")
    main(f"prepare synthetic --out {folder}/shop --name Shop {SIZES}".split())
    main(f"train --dataset {folder}/shop --store {folder}/runs --method tiger --seed 3 {SMALL}".split())
    return folder


@pytest.fixture
def key(root) -> str:
    return next((root / "runs" / "recommender").iterdir()).name


def row(root, key) -> dict:
    return json.loads(next((root / "runs" / "recommender" / key).rglob("row.json")).read_text())


def test_prepare_prints_counts_and_fingerprint(tmp_path, capsys):
    main(f"prepare synthetic --out {tmp_path}/toy {SIZES}".split())
    dataset, said = load_dataset(tmp_path / "toy"), capsys.readouterr().out
    assert dataset.name == "toy"
    cells = [cell.strip() for cell in re.split("[│┃\n]", said)]
    for value in ("toy", "50", "90", f"{len(dataset.items):,}", "86", "76", f"{len(dataset.items) / 50:.2f}"):
        assert value in cells
    assert f"fingerprint {dataset.fingerprint}" in said


def test_train_reports_every_epoch_and_the_scores_of_the_row(root, key, capsys):
    main(f"train --dataset {root}/shop --store {root}/fresh --method tiger --seed 3 {SMALL}".split())
    said = capsys.readouterr().out
    for start in ("quantizer 1/2", "quantizer 2/2", "recommender 1/2", "recommender 2/2"):
        assert len(re.findall(rf"^{start}  .*loss", said, re.MULTILINE)) == 1
    assert f"tiger on Shop, seed 3: run {key}" in said and said.endswith(f"run {key}\n")
    for values in row(root, key)["scores"].values():
        assert all(f"{value:.4f}" in said for value in values.values())


def test_what_the_store_holds_is_not_trained_again(root, key, capsys):
    main(f"train --dataset {root}/shop --store {root}/runs --method tiger --seed 3 {SMALL}".split())
    said = capsys.readouterr().out
    assert "1/2" not in said and said.endswith(f"run {key}\n")
    assert f"the store holds run {key}: nothing is computed" in said


def test_a_fresh_run_does_not_say_that_it_comes_from_the_store(root, capsys):
    main(f"train --dataset {root}/shop --store {root}/second --method tiger --seed 4 {SMALL}".split())
    assert "the store holds" not in capsys.readouterr().out


def test_evaluate_prints_what_the_ranks_say(root, key, capsys):
    main(["evaluate", "--store", str(root / "runs"), "--run", key])
    said = capsys.readouterr().out
    ranks = np.load(next((root / "runs" / "recommender" / key).rglob("ranks_test.npy")))
    assert len(ranks) == 50
    assert f"{np.mean(ranks <= 10):.4f}" in next(line for line in said.splitlines() if "test" in line)


def test_recommend_prints_items_titles_and_scores_best_first(root, key, capsys):
    dataset = load_dataset(root / "shop")
    main(f"recommend --store {root}/runs --run {key} --dataset {root}/shop --user U07 -k 4".split())
    lines = [re.split("[│┃]", line)[1:-1] for line in capsys.readouterr().out.splitlines() if "│" in line]
    titles = dict(zip(dataset.item_ids, dataset.titles, strict=True))
    assert len(lines) == 4 and len({item for item, _, _ in lines}) == 4
    assert all(titles[item.strip()] == title.strip() for item, title, _ in lines)
    scores = [float(score) for _, _, score in lines]
    assert scores == sorted(scores, reverse=True)


def test_methods_are_listed_with_their_labels(capsys):
    main(["methods"])
    said = capsys.readouterr().out
    for name, method in METHODS.items():
        assert re.search(rf"{re.escape(name)} .*{re.escape(method.label)} ", said)


def test_an_epoch_is_a_line_without_the_usage_of_each_codebook():
    metrics = {"loss/total": 1.23456, "codes/used_0_id": 7.0, "codes/excess": 2.0}
    report = EpochReport(stage="quantizer", epoch=3, epochs=9, metrics=metrics)
    assert epoch_line(report) == "quantizer 3/9  loss/total 1.235  codes/excess 2"


def test_help_is_fast_because_it_imports_no_torch():
    code = (
        "import sys; from bbqrec.cli import main\n"
        "try: main(['prepare', 'tabular', '--help'])\n"
        "finally: assert 'torch' not in sys.modules and 'ray' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0 and "--time-column" in done.stdout, done.stderr
