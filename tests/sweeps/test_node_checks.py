"""What keeps a node out: other versions, missing packages, a store that it does not share. Without Ray, and with it."""

import json
import os
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import ray

from bbqrec.errors import InputError
from bbqrec.files import Files
from bbqrec.store import Store
from sweeps import capacity, connection, node_checks, workers
from sweeps.node_checks import Check, check_store, checked, fault, versions

ANSWER = ".writable-answer"


@pytest.fixture
def check(store) -> Check:
    """What this very process passes."""
    Files(store.url).write(".writable-probe", b"")
    return Check(versions=versions(), store=store.url, probe=".writable-probe")


def test_a_node_that_fits_writes_its_answer(check, store):
    assert fault(check, ANSWER) is None and Files(store.url).read(ANSWER) == b""


@pytest.mark.parametrize(
    ("package", "here", "there", "said"),
    [
        ("torch", "2.1.0", "2.13.0", "has torch 2.1.0, the driver 2.13.0"),
        ("torch", "2.13.0+cpu", "2.13.0", None),
        ("numpy", None, "2.0", "has no package numpy"),
    ],
)
def test_versions_are_compared_without_their_build(check, monkeypatch, package, here, there, said):
    known = node_checks.metadata.version

    def version(name: str) -> str:
        if name == package and here is None:
            raise node_checks.metadata.PackageNotFoundError(name)
        return here if name == package else known(name)

    monkeypatch.setattr(node_checks.metadata, "version", version)
    found = fault(replace(check, versions={**check.versions, package: there}), ANSWER)
    assert found == said if said is None else found[0] == said and "constraints.txt" in found[1]


def test_what_runs_import_must_be_there(check, monkeypatch):
    known = node_checks.importlib.util.find_spec
    monkeypatch.setattr(
        node_checks.importlib.util, "find_spec", lambda name: None if name == "safetensors" else known(name)
    )
    assert fault(check, ANSWER)[0] == "has no package safetensors"


def test_another_folder_and_one_that_cannot_be_written_are_told_apart(check, store, tmp_path, monkeypatch):
    elsewhere = replace(check, store=str(tmp_path / "elsewhere"))
    what, remedy = fault(elsewhere, ANSWER)
    assert what == f"sees another folder as {tmp_path / 'elsewhere'}" and "--shared-store" in remedy
    assert not (tmp_path / "elsewhere").exists()

    def refuse(self: Files, name: str, data: bytes) -> None:
        raise InputError(f"store {store.url}: Permission denied", "")

    monkeypatch.setattr(Files, "write", refuse)
    assert fault(check, ANSWER)[0] == f"cannot use the store: store {store.url}: Permission denied"


def test_a_silent_store_is_given_up_soon_and_patience_is_as_before(check, monkeypatch):
    before = node_checks.files.PATIENCE

    def silent(self: Files, name: str) -> bytes:
        assert node_checks.files.PATIENCE == node_checks.STORE_SECONDS < before
        raise InputError(f"store {check.store}: no answer", "")

    monkeypatch.setattr(Files, "read", silent)
    what, remedy = fault(check, ANSWER)
    assert what == f"cannot use the store: store {check.store}: no answer" and "credentials" in remedy
    assert before == node_checks.files.PATIENCE


@pytest.mark.parametrize(
    ("nodes", "local", "shared", "grows", "said"),
    [
        (2, True, False, False, "has 2 nodes"),
        (1, True, False, True, "gets further nodes with the work"),
        (2, True, True, True, None),
        (2, False, False, True, None),
        (1, True, False, False, None),
    ],
)
def test_a_local_store_is_refused_on_several_nodes_also_if_they_are_still_to_come(
    monkeypatch, nodes, local, shared, grows, said
):
    monkeypatch.setattr(ray, "nodes", lambda: [{"Alive": True}] * nodes + [{"Alive": False}])
    monkeypatch.setattr(node_checks, "may_grow", lambda environment: grows)
    store = SimpleNamespace(is_local=local, url="/runs")
    if said is None:
        return check_store(store, shared)
    with pytest.raises(InputError, match=f"store /runs is a local path, but the cluster {said}") as caught:
        check_store(store, shared)
    assert "--shared-store" in caught.value.remedy


def test_a_node_that_joins_later_is_looked_at_by_its_first_run(check, store, monkeypatch):
    node = SimpleNamespace(get_node_id=lambda: "late")
    monkeypatch.setattr(ray, "get_runtime_context", lambda: node)
    trained = []
    replace(check, nodes=frozenset({"late"}), versions={"torch": "0"}).guarded(trained.append)({"known": 1})
    check.guarded(trained.append)({"fits": 1})
    assert trained == [{"known": 1}, {"fits": 1}]
    assert [path.name for path in Path(store.url).iterdir()] == [check.probe]  # nothing of its own is left
    check.guarded(trained.append)({"workers": 2})  # which may be on other nodes than the trial
    passed_on = json.loads(json.dumps(trained.pop()["check"]))
    with pytest.raises(InputError, match="which joined later, has numpy"):
        workers._work({"check": passed_on | {"versions": {**check.versions, "numpy": "0"}}})
    bad = replace(check, versions={**check.versions, "torch": "0"})
    with pytest.raises(InputError, match=r"node .*, which joined later, has torch .*, the driver 0"):
        bad.guarded(trained.append)({})
    assert len(trained) == 2


def test_an_interrupt_leaves_no_answers_of_the_nodes_behind(check, store, monkeypatch):
    node = {
        "NodeID": "a",
        "NodeManagerHostname": "h",
        "NodeManagerAddress": "1",
        "Alive": True,
        "Resources": {"CPU": 1},
    }
    monkeypatch.setattr(ray, "nodes", lambda: [node])
    monkeypatch.setattr(ray, "get_runtime_context", lambda: SimpleNamespace(get_node_id=lambda: "a"))
    look = SimpleNamespace(options=lambda **options: SimpleNamespace(remote=fault))
    monkeypatch.setattr(ray, "remote", lambda **options: lambda function: look)
    monkeypatch.setattr(node_checks, "NodeAffinitySchedulingStrategy", lambda node, soft: None)

    def interrupted(tasks: list[object], **options: object) -> None:
        assert len(list(Path(store.url).iterdir())) == 2  # the probe, and the answer of the one node
        raise KeyboardInterrupt

    monkeypatch.setattr(ray, "wait", interrupted)
    with pytest.raises(KeyboardInterrupt):
        node_checks._passed(check, Files(store.url))
    assert [path.name for path in Path(store.url).iterdir()] == [check.probe]


@pytest.mark.e2e
def test_every_node_of_a_cluster_is_asked(tmp_path, monkeypatch):
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "t" * 64)
    monkeypatch.delenv("PYTHONPATH", raising=False)
    connection._reload_authentication()
    store = Store(tmp_path / "runs")
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    try:
        with connection.session(cluster.address) as dashboard:
            assert dashboard == ""
            assert capacity.machines() == [] and capacity.to_come() == [] and capacity.may_grow({})
            with pytest.raises(InputError, match="gets further nodes with the work"), checked(store, shared=False):
                pass
        cluster.add_node(num_cpus=1, num_gpus=2)
        with connection.session(cluster.address):
            assert capacity.machines() == [(1, 2)] and not capacity.may_grow({})
            with checked(store, shared=True) as check:
                assert len(check.nodes) == 2
                assert Path(store.url, check.probe).exists()
            monkeypatch.setattr(node_checks, "versions", lambda: {**versions(), "torch": "0.0"})
            with (
                pytest.raises(InputError, match=r"node .* has torch [\d.]+, the driver 0\.0, and 1 more") as caught,
                checked(store, shared=True),
            ):
                pass
            assert "\n" not in str(caught.value)
            assert list(Path(store.url).iterdir()) == []  # no probe is left
    finally:
        cluster.shutdown()
        monkeypatch.undo()
        connection._reload_authentication()


def test_on_kubernetes_a_cluster_may_grow(monkeypatch):
    monkeypatch.setattr(capacity, "machines", lambda: [(4, 0)])
    monkeypatch.setattr(capacity, "_reported", lambda: [])
    monkeypatch.setattr(capacity, "_autoscaling_config", lambda: {})
    assert not capacity.may_grow({})
    assert capacity.may_grow({capacity.KUBERAY: "ray start --head"})


def test_the_ray_up_file_of_this_cluster_tells_what_may_come(tmp_path, monkeypatch):
    import subprocess
    import sys
    import time

    head = "192.0.2.7:6379"
    monkeypatch.setattr(ray, "get_runtime_context", lambda: SimpleNamespace(gcs_address=head))
    monkeypatch.setattr(capacity, "_reported", lambda: [])
    monkeypatch.setattr(capacity, "machines", lambda: [(4, 0)])
    kinds = {
        "head": {"resources": {"CPU": 0}},
        "gpu": {"resources": {"CPU": 8, "GPU": 1}, "max_workers": 4},
        "off": {"resources": {"CPU": 99}, "max_workers": 0},
        "unknown": {},
    }
    config = {"max_workers": 5, "head_node_type": "head", "available_node_types": kinds}
    (tmp_path / "config.yaml").write_text(json.dumps(config))
    (tmp_path / "monitor.py").write_text("import time; time.sleep(60)")
    words = [f"--gcs-address={head}", f"--autoscaling-config={tmp_path / 'config.yaml'}"]
    assert capacity.to_come() == []
    process = subprocess.Popen([sys.executable, str(tmp_path / "monitor.py"), *words], env=dict(os.environ))
    try:
        deadline = time.monotonic() + 10
        while not capacity.to_come() and time.monotonic() < deadline:
            time.sleep(0.05)
        assert capacity.to_come() == [(8, 1)] and capacity.may_grow({})
        monkeypatch.setattr(ray, "get_runtime_context", lambda: SimpleNamespace(gcs_address="192.0.2.8:6379"))
        assert capacity.to_come() == [] and not capacity.may_grow({})
    finally:
        process.kill()
        process.wait()
