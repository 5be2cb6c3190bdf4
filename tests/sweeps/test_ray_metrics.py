"""What Ray tells of a study while it runs: metrics for Prometheus, names, and ports on this machine alone."""

import io
import json
import os
import re
import threading
import time
import urllib.request
from collections import defaultdict
from pathlib import Path
from typing import Any

import psutil
import pytest
import ray
from rich.console import Console

from sweeps import metrics
from sweeps.launch import Resources, launch
from sweeps.metrics import METRICS, Publisher, RunMetrics

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
SECONDS = 2.5
"""Of an epoch: longer than Ray keeps a gauge that is not set again, which here is 2 s."""
LINE = re.compile(r"(\w+)\{(.*)\} (\S+)")


class Watcher(threading.Thread):
    """Looks at the Ray of this process, from outside, twice a second: `scrapes` are (time, metrics by name)."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.over = threading.Event()
        self.scrapes: list[tuple[float, dict[str, list[tuple[dict[str, str], float]]]]] = []
        self.titles: set[str] = set()
        self.listening: set[tuple[str, str]] = set()
        self.actors: set[str] = set()

    def run(self) -> None:
        while not self.over.wait(0.5):
            if ray.is_initialized():
                self.look()

    def look(self) -> None:
        node = ray.nodes()[0]
        url = f"http://127.0.0.1:{node['MetricsExportPort']}/metrics"
        try:
            text = urllib.request.urlopen(url, timeout=5).read().decode()
        except OSError:
            return  # not yet
        self.scrapes.append((time.monotonic(), parsed(text)))
        self.actors |= {actor["ActorClassName"] for actor in ray._private.state.actors().values()}
        for process in psutil.Process().children(recursive=True):
            try:
                title = " ".join(process.cmdline()).strip()
                ports = process.net_connections(kind="inet")
            except psutil.Error:
                continue
            self.titles.add(title)
            self.listening |= {(p.laddr.ip, title[:60]) for p in ports if p.status == psutil.CONN_LISTEN}


def parsed(text: str) -> dict[str, list[tuple[dict[str, str], float]]]:
    """Our metrics out of Prometheus' format: name -> (tags, value)."""
    found = defaultdict(list)
    for line in text.splitlines():
        if line.startswith("ray_bbqrec_") and (parts := LINE.fullmatch(line)):
            found[parts[1]].append((dict(re.findall(r'(\w+)="([^"]*)"', parts[2])), float(parts[3])))
    return found


@pytest.fixture(scope="module")
def watched(folder, tmp_path_factory) -> tuple[Any, Watcher]:
    """A study of the full model with slow fake epochs, 2 and 4 of them: its ledger and what was seen of it."""
    from bbqrec.store import Store
    from sweeps.study import Study

    store = Store(tmp_path_factory.mktemp("metrics") / "store")
    overrides = {"quantizer.epochs": 2, "recommender.epochs": 4}
    study = Study(name="ablations", methods=("bbqrec",), datasets=(folder,), profile="tiny", overrides=overrides)
    watcher = Watcher()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join([str(HERE), str(ROOT)]))
        patch.setenv("FAKE_STAGES", json.dumps({"seconds": SECONDS}))
        patch.setenv("RAY_metrics_report_interval_ms", "1000")
        watcher.start()
        resources = Resources(cpus_per_run=1, max_concurrent=2)
        ledger = launch(study.plan(store), store, resources, console=Console(file=io.StringIO()), stages="fake_stages")
        watcher.over.set()
        watcher.join()
    assert ledger.complete
    return ledger, watcher


def values(watcher: Watcher, name: str, **tags: str) -> list[tuple[float, float]]:
    """(time, value) of a metric in every scrape that has it with these tags."""
    return [
        (at, value)
        for at, found in watcher.scrapes
        for labels, value in found[f"ray_{name}"]
        if tags.items() <= labels.items()
    ]


@pytest.mark.e2e
def test_prometheus_sees_the_study(watched):
    ledger, watcher = watched
    quantizer, recommender = ledger.runs.values()
    for _, found in watcher.scrapes:
        states = {labels["state"]: value for labels, value in found["ray_bbqrec_study_runs"]}
        assert states == {} or sum(states.values()) == 2
    assert {value for _, value in values(watcher, "bbqrec_study_runs", state="done", study="ablations")} == {0, 1}
    assert 0 < values(watcher, "bbqrec_study_eta_seconds")[-1][1] < 4 * 3 * SECONDS
    best = [value for _, value in values(watcher, "bbqrec_study_best_score", method="bbqrec", dataset="toy")]
    assert best == sorted(best) and best[0] == 0.01 and best[-1] >= 0.02
    about = {"study": "ablations", "method": "bbqrec", "dataset": "toy"}
    epochs = [value for _, value in values(watcher, "bbqrec_epochs_total", stage="quantizer", **about)]
    assert epochs[-1] == 2 and epochs == sorted(epochs)
    own = {**about, "stage": "quantizer", "seed": "0", "key": quantizer.key, "run": "toy bbqrec seed 0 quantizer"}
    for name, expected in (
        ("bbqrec_run_epoch", {1, 2}),
        ("bbqrec_run_epochs", {2}),
        ("bbqrec_run_loss", {1}),
        ("bbqrec_codebook_used", {5}),
        ("bbqrec_codebook_perplexity", {3.5}),
    ):
        assert {value for _, value in values(watcher, name, **own)} <= expected, name
        assert values(watcher, name, **own), name
    assert values(watcher, "bbqrec_codebook_used", level="1", component="id")
    assert values(watcher, "bbqrec_codebook_perplexity", level="2", component="text")
    assert {value for _, value in values(watcher, "bbqrec_run_score", key=recommender.key)} >= {0.01, 0.02}
    speeds = [v for _, v in values(watcher, "bbqrec_run_epochs_per_second", key=recommender.key) if v]
    assert all(0.1 < speed <= 1 / SECONDS for speed in speeds) and speeds
    declared = {f"ray_{name}": set(metric.tags) for name, metric in METRICS.items()}
    for _, found in watcher.scrapes:
        for name, series in found.items():
            assert all(declared[name] <= labels.keys() for labels, _ in series), name


@pytest.mark.e2e
def test_a_gauge_stays_through_a_long_epoch_and_goes_with_its_run(watched):
    ledger, watcher = watched
    quantizer, recommender = ledger.runs.values()
    first = values(watcher, "bbqrec_run_epoch", key=recommender.key)[0][0]
    since = [at for at, _ in watcher.scrapes if first <= at < first + 3 * SECONDS - 1]
    held = [at for at, _ in values(watcher, "bbqrec_run_epoch", key=recommender.key) if at in since]
    assert len(since) >= 5 and len(held) >= 0.8 * len(since)
    gone = values(watcher, "bbqrec_run_epoch", key=quantizer.key)[-1][0]
    assert gone < watcher.scrapes[-1][0] - SECONDS, "the recommender was at work then, in the same process"


@pytest.mark.e2e
def test_actors_and_processes_have_names(watched):
    _, watcher = watched
    assert "bbqrec_run" in watcher.actors and "ImplicitFunc" not in watcher.actors
    for stage in ("quantizer", "recommender"):
        assert f"ray::toy bbqrec seed 0 {stage}" in watcher.titles


@pytest.mark.e2e
def test_a_local_study_listens_on_this_machine_alone(watched):
    _, watcher = watched
    assert len(watcher.listening) >= 5
    assert {ip.removeprefix("::ffff:") for ip, _ in watcher.listening} == {"127.0.0.1"}, watcher.listening


CONFIG = {
    **{"study": "s", "stage": "quantizer", "method": "m", "name": "n", "key": "k"},
    "run": {"dataset": "d", "seed": 0},
}


def test_without_ray_nothing_is_published_and_nothing_starts(monkeypatch):
    monkeypatch.setattr(metrics, "_declared", lambda name: pytest.fail("a metric was declared"))
    before = threading.active_count()
    with RunMetrics(CONFIG) as published:
        published.report({"epoch": 1, "epochs": 2, "loss": 0.5})
        published.count("bbqrec_epochs_total", stage="quantizer", method="m", dataset="d")
        assert threading.active_count() == before


def test_an_error_of_ray_fails_no_run(monkeypatch, recwarn):
    def broken(name: str) -> Any:
        asked.append(name)
        raise RuntimeError("no agent")

    asked: list[str] = []
    monkeypatch.setattr(metrics, "_declared", broken)
    monkeypatch.setattr(metrics.ray, "is_initialized", lambda: True)
    with RunMetrics(CONFIG) as published:
        for epoch in (1, 2):
            published.report({"epoch": epoch, "epochs": 2, "loss": 0.5})
    assert len(asked) == 1 and not recwarn.list


def test_what_is_published_is_set_again_until_the_end(monkeypatch):
    told: list[tuple[str, float, dict[str, str]]] = []
    monkeypatch.setattr(metrics, "REFRESH_SECONDS", 0.01)
    monkeypatch.setattr(metrics.ray, "is_initialized", lambda: True)
    monkeypatch.setattr(Publisher, "_record", lambda self, name, value, tags: told.append((name, value, dict(tags))))
    with RunMetrics(CONFIG) as published:
        published.report({"epoch": 1, "epochs": 2, "loss": 0.5, "loss/reconstruction": 0.25})
        first = len(told)
        deadline = time.monotonic() + 30
        while len(told) < 4 * first and time.monotonic() < deadline:
            time.sleep(0.01)
        published.set("bbqrec_run_epochs", None)
        time.sleep(0.05)
        late = [name for name, _, _ in told[-first + 2 :]]
    assert {(n, v, t.get("term")) for n, v, t in told if n == "bbqrec_run_loss"} == {
        ("bbqrec_run_loss", 0.5, "total"),
        ("bbqrec_run_loss", 0.25, "reconstruction"),
    }
    assert len(told) >= 4 * first and "bbqrec_run_epochs" not in late
    assert told[-1] == ("bbqrec_run_epochs_per_second", 0.0, {})
    after = len(told)
    time.sleep(0.1)
    assert len(told) == after
