"""Faults of a machine of the cluster, each a raylet of its own here: killed, and cut off while it goes on writing."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import pytest
from harness import wait_for
from ray.cluster_utils import Cluster

from bbqrec.store import Store
from sweeps import connection

pytestmark = pytest.mark.fault


@pytest.fixture
def cluster(bench) -> Iterator[Callable[..., Cluster]]:
    """Starts a cluster: a head that computes nothing, and nodes with a CPU each."""
    started = []
    with pytest.MonkeyPatch.context() as patch:

        def start(nodes: int, **head) -> Cluster:
            for name, value in {**bench.environ(), "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "t" * 64}.items():
                patch.setenv(name, value)
            connection._reload_authentication()
            arguments = {"num_cpus": 0, "include_dashboard": False, **head}
            started.append(Cluster(initialize_head=True, head_node_args=arguments))
            for _ in range(nodes):
                started[0].add_node(num_cpus=1)
            return started[0]

        yield start
        for driver in bench.drivers:
            driver.kill()
            driver.wait()
        for found in started:
            found.shutdown()
    connection._reload_authentication()


def raylet(cluster: Cluster, event: dict) -> int:
    """Process of the node where an event happened."""
    node = next(node for node in cluster.list_all_nodes() if node.node_id == event["node"])
    return node.all_processes["raylet"][0].process.pid


def test_a_killed_node_while_others_wait_for_its_quantizer(bench, cluster):
    bench.faults["seconds"] = 0.6
    nodes, key = cluster(2), bench.key("quantizer", "bbqrec")
    bench.start(cluster=nodes.address)
    struck = bench.seen("epoch", key, epoch=2)
    begun = bench.events("begin", key=key)[0]
    bench.kill(raylet(nodes, begun))
    since = bench.kill(struck["pid"])
    bench.finish()
    assert {event["node"] for event in bench.events("begin", key=key)} > {begun["node"]}
    seen = bench.line("retrying toy bbqrec seed 0 quantizer")
    fault = "node killed while a quantizer trains that others wait for"
    bench.record(fault, bench.again(key, since, struck["pid"]), seen, repeated=4)


def test_a_node_that_was_cut_off_goes_on_writing(bench, cluster):
    """Nodes that are frozen, until others have taken over, and then thaw: one writes a checkpoint, one publishes."""
    bench.faults |= {"saving": 0.6, "publishing": 3.0}
    training, publishing = bench.key("quantizer", "bbqrec"), bench.key("recommender", "sasrec")
    nodes = cluster(3)
    bench.start(cluster=nodes.address)
    frozen = {}
    awaited = {training: ("saving", {"epoch": 2}), publishing: ("publishing", {})}

    def freeze() -> bool:
        for key in awaited.keys() - frozen.keys():
            event, wanted = awaited[key]
            for found in bench.events(event, key=key, **wanted):
                frozen[key] = found["pid"]
                bench.kill(raylet(nodes, bench.events("begin", key=key)[0]), signal.SIGSTOP)
                frozen[key + "since"] = bench.kill(found["pid"], signal.SIGSTOP)
        return awaited.keys() <= frozen.keys()

    wait_for(freeze)
    try:
        wait_for(lambda: [e for e in bench.events("published", key=publishing) if e["pid"] != frozen[publishing]], 240)
        wait_for(lambda: bench.events("epoch", key=training, epoch=3), 240)
    finally:
        for key in awaited:
            os.kill(frozen[key], signal.SIGCONT)
    late = bench.seen("published", publishing, pid=frozen[publishing])
    assert not late["won"]
    bench.seen("epoch", training, pid=frozen[training], epoch=2)  # it is noted once it is saved
    bench.finish()
    attempts = {event["attempt"] for key in awaited for event in bench.events("begin", key=key)}
    assert len(attempts) == 4
    manifest = json.loads(Store(bench.url)._files.read(f"recommender/{publishing}/manifest.json"))
    assert manifest["attempt"] == bench.events("begin", key=publishing)[1]["attempt"]
    assert Store(bench.url)._files.folders(f"recommender/{publishing}") == [manifest["attempt"]]
    seconds = max(bench.again(key, frozen[key + "since"], frozen[key]) for key in awaited)
    seen = bench.line("retrying toy sasrec seed 0 recommender")
    fault = "node cut off, replaced, and then goes on writing"
    bench.record(fault, seconds, seen, injected=2, repeated=6)


FILL = """
import sys, time, numpy, ray
ray.init(address=sys.argv[1], logging_level="ERROR", log_to_driver=False)
held = [ray.put(numpy.ones(20 * 2**20, numpy.uint8)) for _ in range(8)]
print("full", flush=True)
time.sleep(600)
"""


def test_a_full_object_store_of_ray(bench, cluster):
    """Another program holds twice the memory that the nodes share: Ray moves it to disk."""
    nodes = cluster(2, object_store_memory=80 * 2**20)
    filler = subprocess.Popen([sys.executable, "-c", FILL, nodes.address], stdout=subprocess.PIPE, env=dict(os.environ))
    try:
        assert filler.stdout is not None and filler.stdout.readline() == b"full\n"
        since = time.time()
        bench.start(cluster=nodes.address)
        bench.finish()
    finally:
        filler.kill()
        filler.wait()
    first = bench.events("begin")[0]["time"] - since
    bench.record("object store of Ray full", first, bench.line("done 6/6"), repeated=0)
