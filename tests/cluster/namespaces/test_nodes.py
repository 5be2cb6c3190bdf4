"""A study on three nodes of their own addresses and file systems: across them, cut off, without a head, uninvited."""

import collections
import importlib.util
import json
import os
import re
import shutil
import signal
import time
from pathlib import Path

import pytest
from harness import wait_for
from nodes import ROOT, TOKEN, namesakes
from studies import words

pytestmark = pytest.mark.namespaces


def test_a_study_runs_across_nodes_and_equals_that_of_one(studies):
    studies.start()
    studies.finish()
    store = studies.check_same()
    rows = [store.read_json(run.stage, run.key, "row.json") for run in studies.single.runs().values()]
    assert {row["provenance"]["host"] for row in rows} == {"node1", "node2", "node3"}
    assert {write.address for write in studies.writes()} == {node.address for node in studies.cluster.network.nodes}
    for node in studies.cluster.network.nodes[1:]:
        assert not node.path("/tmp/home/.cache/bbqrec/data").exists(), "the data set came through the store"


def test_without_the_token_nobody_gets_in(studies):
    three, head = studies.cluster.network.nodes[2], studies.cluster.head
    none, wrong = {"HOME": "/tmp/stranger"}, {"RAY_AUTH_TOKEN": "f" * 64}
    status = three.run("ray", "status", "--address", studies.cluster.address, check=False, **wrong)
    assert status.returncode != 0 and head.address not in status.stdout, status.stdout
    command = ("python", ROOT / "sweeps/ablations.py", *words(studies.url), "--cluster", studies.cluster.address)
    done = three.run(*command, check=False, PYTHONPATH=str(ROOT), **none)
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert done.returncode == 2 and "wants its token" in line, done.stderr
    job = head.run("ray", "job", "submit", "--address", "http://127.0.0.1:8265", "--", "true", check=False, **wrong)
    assert job.returncode != 0 and "submitted successfully" not in job.stdout, job.stdout
    assert not studies.writes("quantizer|recommender")
    seen = three.run("bash", "-c", f"echo > /dev/tcp/{head.address}/8265", check=False)
    assert seen.returncode != 0 and "refused" in seen.stderr, "the dashboard is for the head alone"


def test_a_node_is_cut_off_and_comes_back(studies):
    """Others take over its run. It goes on writing when the cable is back, and replaces nothing."""
    network, checkpoint = studies.cluster.network, r"quantizer/\w+/progress/latest.json"
    studies.start()

    def hit():
        return [(node, w) for node in network.nodes[1:] for w in studies.writes(checkpoint, node)]

    node, first = studies.wait(hit)[0]
    key = first.name.split("/")[1]
    raylet = list(namesakes(node, "/raylet/raylet"))
    network.cut(node)
    before, cut = len(studies.writes(node=node)), time.time()
    for process in raylet:  # otherwise Ray would end the worker at once when it hears that it was given up
        os.kill(process, signal.SIGSTOP)
    try:
        (manifest,) = studies.wait(lambda: studies.writes(f"quantizer/{key}/manifest.json"))
        assert manifest.address != node.address and len(studies.writes(node=node)) == before
        print(f"taken over and published {manifest.time - cut:.0f} s after the cut")
        network.mend(node)
        wait_for(lambda: len(studies.writes(node=node)) > before)  # at times after the study's end
        studies.finish()
    finally:
        network.mend(node)
        for process in raylet:
            os.kill(process, signal.SIGCONT)
    late = studies.writes(node=node)[before:]
    assert late and "retrying" in studies.printed()
    studies.check_same()
    writers = collections.defaultdict(set)
    for write in studies.writes(r"(quantizer|recommender)/"):
        writers[write.name].add(write.address)
    shared = {name for name, addresses in writers.items() if len(addresses) > 1}
    assert shared <= {f"quantizer/{key}/progress/latest.json"}, "two nodes wrote one file"
    assert collections.Counter(w.name for w in studies.writes("manifest.json")).most_common(1)[0][1] == 1
    wait_for(lambda: studies.cluster.gone(node), 60)  # Ray ends there when it hears that it was given up
    studies.cluster.start()


def test_the_head_dies_and_the_same_command_goes_on(studies):
    """All that is published counts. Nodes are started anew, as `ray up` does it: the old Ray waits for its old head."""
    cluster = studies.cluster
    studies.start(RAY_gcs_rpc_server_reconnect_timeout_s="10")
    studies.wait(lambda: len(studies.writes("recommender/.*/manifest.json")) >= 1)
    killed = cluster.kill(cluster.head)
    status = studies.drivers[-1].wait(timeout=120)
    print(f"the driver ended {time.time() - killed:.0f} s after the head with status {status}")
    said = studies.printed().rsplit("[0:", 1)[1].partition("\n")[2]
    assert status == 1 and len(said.strip().splitlines()) == 1 and "GCS" in said, said
    for node in cluster.network.nodes[1:]:
        cluster.kill(node)
    before = len(studies.writes("(quantizer|recommender)/"))
    done = {w.name.split("/")[1] for w in studies.writes("(quantizer|recommender)/.*manifest.json")}
    cluster.start()
    studies.start()
    studies.finish()
    studies.check_same()
    again = {w.name.split("/")[1] for w in studies.writes("(quantizer|recommender)/")[before:]}
    everything = studies.single.runs().keys()
    assert done and again and not done & again and done | again == everything


def test_a_job_is_submitted_stopped_followed_fetched_and_seen(studies):
    head, methods = studies.cluster.head, ("bbqrec/no-u", "sasrec")
    python = {"PYTHONPATH": str(ROOT)}

    def submit() -> str:
        sent = ("python", ROOT / "sweeps/ablations.py", "--submit", *words(studies.url, methods), "--out", "/tmp/job")
        printed = head.run("env", "--chdir=/tmp", *sent, **python).stdout
        return re.search(r"ablations-[0-9a-f]{8}-\d{8}-\d{6}", printed)[0]

    def jobs(*what: object) -> str:
        return head.run("env", "--chdir=/tmp", "python", "-m", "sweeps.jobs", *what, seconds=180, **python).stdout

    stopped = submit()
    wait_for(lambda: studies.writes("progress/latest.json"))
    jobs("stop", stopped)
    assert stopped in jobs("list")
    name = submit()
    before = len(studies.writes("(quantizer|recommender)/"))
    wait_for(lambda: len(studies.writes("(quantizer|recommender)/")) > before)
    seen = look(studies, "jobs", "actors")
    followed = jobs("follow", name)
    assert name != stopped and "done 3/3" in followed and TOKEN not in followed
    jobs("fetch", name, "--out", "/tmp/fetched")
    assert head.path("/tmp/fetched/rows.csv").exists()
    studies.check_same(methods)
    if seen is not None:
        assert name in seen["jobs"] and "RUNNING" in seen["jobs"] and "STOPPED" in seen["jobs"]
        assert "ALIVE" in seen["actors"] and "10.77.0.1" in seen["actors"]


def look(studies, *pages: str) -> dict[str, str] | None:
    """Text of pages of the dashboard, pictures in BBQREC_NAMESPACES_OUT if it is set; None without a browser."""
    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None or importlib.util.find_spec("playwright") is None:
        return None
    head, program = studies.cluster.head, Path(__file__).with_name("dashboard.py")
    head.path("/tmp/pictures").mkdir(exist_ok=True)
    paths = {"PYTHONPATH": os.environ.get("PYTHONPATH", "")}
    seen = head.run("python", program, chromium, TOKEN, "/tmp/pictures", *pages, **paths).stdout
    if out := os.environ.get("BBQREC_NAMESPACES_OUT"):
        shutil.copytree(head.path("/tmp/pictures"), out, dirs_exist_ok=True)
    return json.loads(seen)
