"""The same study on one, two and three nodes of one core each: Linux namespaces with Ray, and an S3 store between them.

Runs that sleep show what the platform itself costs across nodes, whatever machine is under them. Runs that compute show
as much of it as that machine has cores.
"""

import importlib
import io
import json
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from rich.console import Console

from bbqrec.datasets.synthetic import SyntheticConfig, prepare_synthetic
from bbqrec.store import Store
from benchmarks.inputs import Inputs
from benchmarks.measure import Limit, Row, row
from benchmarks.trivial import SECONDS
from sweeps.launch import Resources, launch
from sweeps.study import Plan, Study

ROOT = Path(__file__).resolve().parents[1]
HARNESS = ROOT / "tests/cluster/namespaces"
NODES = (1, 2, 3)
SLEEP = 6.0
BUCKET = "scaling"
Found = Mapping[str, Mapping[int, Mapping[str, float]]]


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A study to repeat. `share` of a speed-up by the number of nodes is the target, `idle` at most in percent."""

    name: str
    stages: str
    methods: tuple[str, ...]
    seeds: int
    changes: Mapping[str, int]
    share: float
    idle: float
    note: str


KINDS = {
    "sleeping": Kind(
        name=f"12 runs of {SLEEP:g} s",
        stages="benchmarks.trivial",
        methods=("sasrec",),
        seeds=12,
        changes={},
        share=0.9,
        idle=15.0,
        note="runs sleep",
    ),
    "computing": Kind(
        name="6 runs of the embedded study",
        stages="bbqrec.stages",
        methods=("bbqrec", "bbqrec/s", "bbqrec/no-u", "sasrec"),
        seeds=1,
        changes={"quantizer.epochs": 3, "recommender.epochs": 2},
        share=0.5,
        idle=50.0,
        note="runs compute; three start at once, two of them are quantizers that the others wait for",
    ),
}


def scaling(inputs: Inputs, rounds: int) -> Iterator[Row | Limit]:
    """Each study once on each number of nodes. Nothing where there can be no namespaces (root, Linux)."""
    sys.path.insert(0, str(HARNESS))
    nodes = importlib.import_module("nodes")
    if reason := nodes.unavailable():
        print(f"scaling is not measured: {reason}", file=sys.stderr)
        return
    with tempfile.TemporaryDirectory() as folder:
        yield from compared(_measured(Path(folder)))


def compared(found: Found) -> Iterator[Row | Limit]:
    """Speed-ups against one node, and idle time, of what `study` found by kind and number of nodes."""
    for kind, spans in found.items():
        about, alone = KINDS[kind], spans[1]
        for count, span in spans.items():
            title, ours = f"{about.name}, nodes of a core", f"{count} node{'s' * (count > 1)}"
            if count > 1:
                rates = {ours: [span["runs"] / span["seconds"]], "1 node": [alone["runs"] / alone["seconds"]]}
                target = about.share * count
                yield row(title, "runs a second", rates, ours, "1 node", at_least=target, note=about.note)
            idle = 100 * (1 - span["busy"] / (count * span["seconds"]))
            yield Limit(name=f"{title}, {ours}", unit="% idle", value=idle, at_most=about.idle, note=about.note)


def _measured(folder: Path) -> Found:
    """What `study` found of each kind on each number of nodes; the cluster grows by a node at a time."""
    nodes, ray_nodes = (importlib.import_module(name) for name in ("nodes", "ray_nodes"))
    found: dict[str, dict[int, Mapping[str, float]]] = {kind: {} for kind in KINDS}
    with nodes.Network(folder, max(NODES)) as network:
        network.serve_s3()
        network.s3(f"s3.mkdir('{BUCKET}')")
        environment = {"PYTHONPATH": str(ROOT), SECONDS: str(SLEEP)}
        cluster = ray_nodes.RayNodes(network, environment=environment)
        for count in NODES:
            cluster.start(count)
            for kind in KINDS:
                url = f"s3://{BUCKET}/{kind}-{count}"
                words = ("python", "-m", "benchmarks.scaling", cluster.address, url, kind)
                printed = cluster.head.run(*words, seconds=600, **environment).stdout
                found[kind][count] = json.loads(printed.splitlines()[-1])
    return found


def study(address: str, url: str, kind: str) -> dict[str, float]:
    """Runs a study on the cluster at `address`. The number of its runs, the seconds from the first one's begin to the
    last one's end, and the seconds that all of them were at work together."""
    about, data = KINDS[kind], Path(tempfile.gettempdir(), "embedded")
    if not data.exists():
        prepare_synthetic(SyntheticConfig(), data, "synthetic")
    store = Store(url)
    sizes = {"seeds": about.seeds, "profile": "tiny", "overrides": about.changes}
    made = Study(name=kind, methods=about.methods, datasets=(data,), **sizes)
    plan = made.plan(store)
    resources = Resources(cluster=address, cpus_per_run=1)
    ledger = launch(plan, store, resources, console=Console(file=io.StringIO()), stages=about.stages)
    assert ledger.complete, ledger.errors
    times = [_times(store, plan, key) for key in plan.runs]
    span = max(end for _, end, _ in times) - min(begin for begin, _, _ in times)
    return {"runs": len(times), "seconds": span, "busy": sum(busy for _, _, busy in times)}


def _times(store: Store, plan: Plan, key: str) -> tuple[float, float, float]:
    """Begin, end and seconds at work of a run."""
    stage = plan.runs[key].stage
    found: dict[str, Any] = store.read_json(stage, key, "row.json")
    if "begun" in found:
        return found["begun"], found["ended"], found["ended"] - found["begun"]
    begin, end = (datetime.fromisoformat(found["provenance"][name]).timestamp() for name in ("started", "finished"))
    return begin, end, found["costs"]["wall_seconds" if stage == "quantizer" else "recommender_wall_seconds"]


if __name__ == "__main__":
    print(json.dumps(study(*sys.argv[1:])))
