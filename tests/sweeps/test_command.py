"""The command itself: options, bad input in one line, and one whole study with the real stages and two kills."""

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import pytest
from rich.console import Console
from small_data import SMALL

from analysis.rows import load_rows
from bbqrec.data import load_dataset
from bbqrec.datasets.synthetic import SyntheticConfig, prepare_synthetic
from bbqrec.errors import InputError
from bbqrec.methods import METHODS, run_config
from bbqrec.store import Store
from sweeps.ablations import VARIANTS, Ablations
from sweeps.command import EMBEDDED, embedded, main
from sweeps.command_line import completed, overrides
from sweeps.ledger import Ledger
from sweeps.study import Study

ROOT = Path(__file__).parents[2]
SCRIPT = str(ROOT / "sweeps" / "ablations.py")


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_default_is_the_full_model_and_its_eight_variants():
    assert len(VARIANTS) == 9 and set(VARIANTS) == {m for m in METHODS if m.split("/")[0] == "bbqrec"}
    assert VARIANTS[0] == "bbqrec"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--cluster"], ["--cluster", "auto"]),
        (["--cluster", "--seeds", "2"], ["--cluster", "auto", "--seeds", "2"]),
        (["--cluster", "10.0.0.1:6379"], ["--cluster", "10.0.0.1:6379"]),
        (["--cluster=10.0.0.1:6379", "--dry-run"], ["--cluster=10.0.0.1:6379", "--dry-run"]),
        (["--set", "a=1", "b=2"], ["--set", "a=1", "b=2"]),
    ],
)
def test_cluster_may_stand_alone(words, expected):
    assert completed(words) == expected


def test_what_argparse_would_drop_silently_is_refused():
    with pytest.raises(InputError, match="--dataset is given twice"):
        completed(["--dataset", "a", "--seeds", "1", "--dataset", "b"])
    with pytest.raises(InputError, match="--store is given twice"):
        completed(["--store=a", "--store", "b"])
    with pytest.raises(InputError, match="--max-concurrent is given twice"):
        completed(["--max_concurrent=1", "--max-concurrent", "2"])


def test_overrides_are_name_value_pairs():
    assert overrides(["quantizer.levels=4", "quantizer.components=id,text"]) == {
        "quantizer.levels": "4",
        "quantizer.components": "id,text",
    }
    for words in (["levels"], ["=4"], ["levels="], ["a=1", "a=2"]):
        with pytest.raises(InputError, match="--set"):
            overrides(words)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--variants", "bbqrec/no-mmi"], "unknown variant 'bbqrec/no-mmi': did you mean bbqrec/no-mim?"),
        (["--profile", "tinny"], "did you mean tiny?"),
        (["--dataset", "nowhere"], "nowhere"),
        (["--set", "quantizer.level=4"], "did you mean levels?"),
        (["--set", "quantizer.levels=four"], "levels='four'"),
        (["--set", "levels"], "NAME=VALUE"),
        (["--seeds", "0"], "--seeds 0"),
        (["--seeds", "1", "--seeds", "2"], "--seeds is given twice"),
        (["--max-concurrent", "0"], "--max-concurrent 0 is too small"),
        (["--cluster", "127.0.0.1:9"], "cluster 127.0.0.1:9 cannot be reached"),
        (["--store", "ftpx://a/b"], "ftpx"),
        (["--store", "file-not-folder"], "file-not-folder"),
    ],
)
def test_bad_input_is_one_line_and_leaves_no_results(here, capsys, words, said):
    Path("file-not-folder").write_text("x")
    assert main(Ablations, words) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and said in error
    assert not Path("results").exists() and not list(here.rglob("study"))


def test_a_dry_run_makes_the_embedded_data_set_prints_the_plan_and_stops(here, capsys):
    assert main(Ablations, ["--dry-run", "--store", "runs", "--seeds", "2"]) == 0
    printed = capsys.readouterr().out
    assert "18 cells" in printed and "32" in printed
    assert load_dataset(here / "runs" / "data" / EMBEDDED).name == EMBEDDED
    assert not Path("results").exists() and not (here / "runs" / "study").exists()


@pytest.mark.parametrize("spoil", ["options", "version", "header"])
def test_an_embedded_data_set_of_another_generator_is_generated_anew(here, monkeypatch, caplog, spoil):
    folder, config = here / "runs" / "data" / EMBEDDED, SyntheticConfig(users=53, **SMALL)
    monkeypatch.setattr("sweeps.command.SyntheticConfig", lambda: config)
    prepare_synthetic(replace(config, seed=spoil == "options"), folder, EMBEDDED)
    expected = prepare_synthetic(config, here / "expected", EMBEDDED).dataset.fingerprint
    if spoil != "options":
        header = json.loads((folder / "dataset.json").read_text())
        header["generator"]["version"] = 0
        (folder / "dataset.json").write_text(json.dumps(header) if spoil == "version" else "{")
    for generated in (True, False):
        before = folder.stat().st_ino
        assert load_dataset(embedded(Store(here / "runs"))).fingerprint == expected
        assert (folder.stat().st_ino != before) == generated == ("generated anew" in caplog.text)
        caplog.clear()


@pytest.mark.parametrize(("given", "profile"), [([], "tiny"), (["--dataset", "{folder}"], "small")])
def test_the_profile_follows_the_data_set(here, folder, monkeypatch, given, profile):
    planned, plan = [], Study.plan
    monkeypatch.setattr(Study, "plan", lambda self, store: planned.append(self) or plan(self, store))
    assert main(Ablations, ["--dry-run", *(word.format(folder=folder) for word in given)]) == 0
    assert planned[0].profile == profile
    assert (here / "runs").exists() == (not given)  # only the embedded data set has to be put somewhere


def test_the_report_is_of_the_study_that_was_run(here, folder, monkeypatch, capsys):
    """Another driver writes its study under the same name meanwhile."""

    def launch(plan, store, resources, **options) -> Ledger:
        Ledger(Study(name="ablations", methods=("tiger",), datasets=(folder,)).plan(store), store).write(final=True)
        return Ledger(plan, store)

    monkeypatch.setattr("sweeps.command.launch", launch)
    with pytest.raises(KeyboardInterrupt):  # nothing was computed
        Ablations(variants=("bbqrec", "bbqrec/e"), dataset=(folder,), out=here / "out").run(Console(), "")
    assert list(load_rows(here / "out")["method"]) == ["bbqrec", "bbqrec/e"]
    assert "tables and figures of study ablations-" in capsys.readouterr().out


def descendants(pid: int) -> list[int]:
    """Processes below `pid`."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
        except (FileNotFoundError, ProcessLookupError):
            continue
    found = [pid]
    for ancestor in found:
        found += [child for child, parent in parents.items() if parent == ancestor]
    return found[1:]


def trial_processes(driver: int) -> list[int]:
    """The processes of a driver's trials that are in the middle of a step: between two, Ray takes the title away."""
    found = []
    for pid in descendants(driver):
        try:
            if "ray::toy bbqrec seed 0" in Path(f"/proc/{pid}/cmdline").read_text():
                found.append(pid)
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


T = TypeVar("T")


def wait_until(happened: Callable[[], T], process: subprocess.Popen) -> T:
    """What `happened` returns once it is true."""
    deadline = time.monotonic() + 120
    while not (value := happened()):
        assert process.poll() is None and time.monotonic() < deadline, "it never happened"
        time.sleep(0.01)
    return value


def files_with(texts: Sequence[str], *folders: Path) -> list[tuple[Path, str]]:
    """The files under the folders that have one of the texts in them, and which."""
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    return [(path, text) for path in files for text in texts if text.encode() in path.read_bytes()]


SECRETS = {
    name: f"planted-{name}-7d1f"
    for name in ("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "WANDB_API_KEY", "MLFLOW_TRACKING_PASSWORD", "HF_TOKEN")
}


@pytest.mark.e2e
def test_a_real_study_survives_kill_9_of_driver_and_worker_and_equals_a_straight_run(folder, tmp_path):
    overrides = {"quantizer.epochs": 20, "recommender.epochs": 40, "recommender.patience": 40, "recommender.beam": 20}
    command = [sys.executable, SCRIPT, "--dataset", str(folder), "--profile", "tiny", "--variants", "bbqrec"]
    command += ["--store", "runs", "--out", "out", "--cpus-per-run", "1"]
    command += ["--set", *(f"{name}={value}" for name, value in overrides.items())]
    run = run_config("bbqrec", load_dataset(folder), 0, "tiny", overrides)
    store = Store(tmp_path / "runs")

    def start() -> subprocess.Popen:
        options = {"cwd": tmp_path, "env": {**os.environ, **SECRETS, "RAY_AUTH_TOKEN": "5ec2e7" * 11}}
        return subprocess.Popen(command, **options, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def epoch(stage: str, key: str) -> int:
        saved = store.load_progress(stage, key)
        return saved.epoch if saved else 0

    driver = start()
    wait_until(lambda: epoch("quantizer", run.quantizer_key) >= 2, driver)
    driver.kill()
    driver.communicate()
    assert not store.has("quantizer", run.quantizer_key)
    assert store.load_json("study/ablations.json")["cells"][0]["status"] == "running"

    driver = start()
    wait_until(lambda: epoch("recommender", run.recommender_key) >= 2, driver)
    os.kill(wait_until(lambda: trial_processes(driver.pid), driver)[0], signal.SIGKILL)
    printed, _ = driver.communicate(timeout=180)
    assert driver.returncode == 0, printed
    assert "retrying toy bbqrec seed 0 recommender: its process died" in printed
    assert "done 2/2, running 0, failed 0" in printed
    assert " of computing (2 runs); without sharing " in printed
    row = store.read_json("recommender", run.recommender_key, "row.json")
    costs, given = row["costs"], row["provenance"]
    assert (given["cpus"], given["gpus"], given["attempts"]) == (1.0, 0.0, 2)
    for stage in ("quantizer", "recommender"):
        assert costs[f"{stage}_wall_seconds"] > costs[f"{stage}_seconds"] == costs[f"{stage}_core_seconds"] > 0
    assert "| R@10" in printed and (tmp_path / "out" / "table3.tex").exists()
    secrets = [*SECRETS.values(), "5ec2e7" * 2]
    assert not any(secret in printed for secret in secrets)
    ray = list(Path(os.environ.get("RAY_TMPDIR", "/tmp"), "ray").glob(f"session_*_{driver.pid}"))  # its logs
    assert len(ray) == 1 and len(list(ray[0].rglob("worker-*.out"))) > 0
    assert files_with(["toy bbqrec seed 0 recommender: epoch 2/40, loss"], *ray), "a log says what its run does"
    assert files_with(secrets, tmp_path, *ray) == []

    straight = Store(tmp_path / "straight")
    train = [sys.executable, "-c", "from bbqrec.cli import main; main()", "train", "--dataset", str(folder)]
    train += ["--profile", "tiny", "--store", straight.url, "--device", "cpu", *command[command.index("--set") :]]
    subprocess.run(train, cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=True, stdout=subprocess.DEVNULL)
    for stage, key, arrays in (
        ("quantizer", run.quantizer_key, ("codes.npy", "vectors.npy")),
        ("recommender", run.recommender_key, ("ranks_valid.npy", "ranks_test.npy")),
    ):
        for name in arrays:
            expected, found = (np.load(io.BytesIO(s.read_bytes(stage, key, name))) for s in (straight, store))
            assert np.array_equal(expected, found), name
        epochs = [json.loads(line)["epoch"] for line in store.read_bytes(stage, key, "metrics.jsonl").splitlines()]
        assert epochs == list(range(1, len(epochs) + 1))
    assert store.load_json("study/ablations.json")["cells"][0]["status"] == "done"

    shutil.rmtree(tmp_path / "out")
    published = {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").rglob("manifest.json")}
    again = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert again.returncode == 0 and (tmp_path / "out" / "table4.md").exists()
    assert published == {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").rglob("manifest.json")}
