"""What Ray and our own bookkeeping cost a study beyond the work of its runs, and how busy they keep its slots."""

import io
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ray import tune
from rich.console import Console

from bbqrec.datasets.synthetic import SyntheticConfig, prepare_synthetic
from bbqrec.store import Store
from benchmarks.inputs import Inputs
from benchmarks.measure import Limit, Row, Sample, alternate, row
from benchmarks.trivial import SECONDS
from sweeps import connection
from sweeps.launch import Resources, launch
from sweeps.study import Plan, Study

CELLS, SLOTS = 200, 4


def dispatch(inputs: Inputs, rounds: int) -> Iterator[Row | Limit]:
    """Trivial cells against trivial trials of plain Ray Tune; idle slots of studies whose runs take a while."""
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder, "data")
        prepare_synthetic(SyntheticConfig(users=60, items=222, max_length=12, mean_length=6.0), data, "trivial")
        turns = {"ours": _timed(lambda: _study(data, seeds=CELLS)), "plain Ray Tune": _timed(_plain)}
        rates = alternate(turns, min(rounds, 2))
        named = f"{CELLS} trivial cells, {SLOTS} slots"
        yield row(
            named, "cells a second", rates, "ours", "plain Ray Tune", at_most=2.0, note="wall time, start included"
        )
        per_cell = 1 / sorted(rates["ours"])[len(rates["ours"]) // 2]
        yield Limit(name=named, unit="s a cell", value=per_cell, at_most=0.15, note="wall time, start included")
        long = _study(data, seeds=8, seconds=60.0)
        yield Limit(name="8 runs of 60 s, 4 slots", unit="% idle", value=100 * _idle(*long), at_most=2.0)
        staged = _study(data, seeds=2, seconds=6.0, methods=("bbqrec", "bbqrec/s", "bbqrec/e", "bbqrec/no-u"))
        note = "4 quantizers, which 8 recommenders wait for: three rounds of four, if nothing waits in a slot"
        yield Limit(
            name="12 runs of 6 s in two stages, 4 slots",
            unit="% idle",
            value=100 * _idle(*staged),
            at_most=15.0,
            note=note,
        )


def _study(
    data: Path, *, seeds: int, seconds: float = 0.0, methods: tuple[str, ...] = ("sasrec",)
) -> tuple[Plan, Store]:
    """Runs a study of trivial stages in a store of its own, with a slot for half a CPU or more."""
    os.environ[SECONDS] = str(seconds)
    store = Store(tempfile.mkdtemp(dir=data.parent))
    study = Study(name="dispatch", methods=methods, datasets=(data,), seeds=seeds, profile="tiny")
    plan = study.plan(store)
    resources = Resources(cpus_per_run=(os.cpu_count() or 1) / SLOTS, max_concurrent=SLOTS)
    ledger = launch(plan, store, resources, console=Console(file=io.StringIO()), stages="benchmarks.trivial")
    assert ledger.complete, ledger.errors
    return plan, store


def _plain() -> None:
    """As many empty trials, as Ray's own documentation has them, processes reused."""
    with connection.session(None), tempfile.TemporaryDirectory() as folder:
        tune.Tuner(
            tune.with_resources(_empty, {"cpu": (os.cpu_count() or 1) / SLOTS}),
            param_space={"seed": tune.grid_search(list(range(CELLS)))},
            tune_config=tune.TuneConfig(reuse_actors=True, max_concurrent_trials=SLOTS),
            run_config=tune.RunConfig(storage_path=folder, verbose=0),
        ).fit()


def _empty(config: dict[str, Any]) -> None:
    tune.report({"score": config["seed"]})


def _timed(work: Callable[[], object]) -> Callable[[], Sample]:
    """Cells per second of wall time: workers' CPU time is none of the driver's."""

    def turn() -> Sample:
        begun = time.perf_counter()
        work()
        return Sample(work=CELLS, seconds=time.perf_counter() - begun)

    return turn


def _idle(plan: Plan, store: Store) -> float:
    """Share of the slots' time without a run at work, from the first run's begin to the last one's end."""
    rows = [store.read_json(run.stage, run.key, "row.json") for run in plan.runs.values()]
    span = max(r["ended"] for r in rows) - min(r["begun"] for r in rows)
    return 1 - sum(r["ended"] - r["begun"] for r in rows) / (span * SLOTS)
