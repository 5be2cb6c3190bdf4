"""Which Ray a study gets: unreachable clusters end in one line in bounded time; a local store stays on one node."""

import io
import json
import os
import shutil
import signal
import socket
import sys
import threading
import time
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import pytest
import ray
from fake_stages import diary
from rich.console import Console

from bbqrec.errors import InputError
from sweeps import connection, credentials, node_checks
from sweeps.launch import Resources, launch
from sweeps.local_ray import access

HERE = Path(__file__).parent


@pytest.mark.parametrize("address", ["127.0.0.1:9", "no-such-host.invalid:6379"])
def test_an_unreachable_cluster_is_named_at_once(address):
    began = time.monotonic()
    with pytest.raises(InputError) as caught, connection.session(address):
        pass
    assert f"cluster {address} cannot be reached" in str(caught.value)
    assert "check the address" in caught.value.remedy and "\n" not in str(caught.value)
    assert time.monotonic() - began < 10 and not ray.is_initialized()


def test_the_address_of_a_head_may_be_one_of_ipv6():
    with pytest.raises(InputError, match=r"cluster \[::1\]:9 cannot be reached .*(refused|unreachable|assign)"):
        connection._reachable("[::1]:9")


@pytest.mark.parametrize("early", [True, False])
def test_sigterm_is_ctrl_c_also_after_ray_has_set_a_handler_of_its_own(monkeypatch, early):
    def init(**options: object) -> SimpleNamespace:
        signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(number))
        if early:
            signal.raise_signal(signal.SIGTERM)
        return SimpleNamespace(dashboard_url="")

    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(connection.ray, "init", init)
    monkeypatch.setattr(connection.ray, "shutdown", lambda: signal.raise_signal(signal.SIGTERM))
    with pytest.raises(KeyboardInterrupt), connection.session(None):
        pass
    assert signal.getsignal(signal.SIGTERM) == before


@pytest.mark.parametrize("address", ["ray://127.0.0.1:10001", "127.0.0.1", "127.0.0.1:port", ":6379"])
def test_what_is_no_host_and_port_is_refused(address):
    with pytest.raises(InputError, match=f"cluster {address} is not host:port"), connection.session(address):
        pass


def test_a_port_where_something_else_listens_ends_in_bounded_time(monkeypatch):
    monkeypatch.setattr(connection, "PROBE_SECONDS", 6)
    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=server.accept, daemon=True)
        thread.start()
        address = f"127.0.0.1:{server.getsockname()[1]}"
        began = time.monotonic()
        with pytest.raises(InputError, match=f"cluster {address}"), connection.session(address):
            pass
        assert time.monotonic() - began < 15


MISMATCH = """Traceback
RuntimeError: Version mismatch: The cluster was started with:
    Ray: 2.60.0
    Python: 3.11.7
This process on node 192.0.2.2 was started with:
    Ray: 2.59.9
    Python: 3.12.1
"""


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (MISMATCH, "cluster h:1 has Ray 2.60.0, Python 3.11.7, this machine Ray 2.59.9, Python 3.12.1: install"),
        (
            "ray.exceptions.AuthenticationError: x\n\nConnectionError: no",
            "h:1 wants its token, and has been shown no token",
        ),
        ("one\nConnectionError: two\n", "cluster h:1 cannot be reached (ConnectionError: two): remedy"),
        ("", "cluster h:1 cannot be reached (no reason given): remedy"),
    ],
)
def test_what_ray_says_of_a_cluster_becomes_one_line(monkeypatch, said, expected):
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "0" * 64)
    assert expected in str(connection._refused("h:1", said, "remedy"))


def test_a_refused_token_is_told_from_none(monkeypatch, tmp_path):
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "token"))
    assert "no token" in str(connection._refused("h:1", "AuthenticationError", "remedy"))
    (tmp_path / "token").write_text("0" * 64)
    assert "another one" in str(connection._refused("h:1", "AuthenticationError", "remedy"))


def test_auto_takes_the_address_from_the_environment(monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:9")
    with (
        pytest.raises(InputError, match=r"cluster 127\.0\.0\.1:9 cannot be reached"),
        connection.session(connection.AUTO),
    ):
        pass


def test_the_environment_is_as_before_and_a_stray_token_file_changes_nothing(monkeypatch, tmp_path):
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    before = dict(os.environ)
    with connection.environment(None):
        assert os.environ["RAY_AUTH_MODE"] == "token" and len(os.environ["RAY_AUTH_TOKEN"]) == 64
        assert str(HERE.parents[1]) in os.environ["PYTHONPATH"].split(os.pathsep)
    assert dict(os.environ) == before
    token = tmp_path / "token"
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(token))
    for exists, mode in ((False, "disabled"), (True, "token")):
        if exists:
            token.write_text("x" * 64)
        with connection.environment("127.0.0.1:6379"):
            assert os.environ["RAY_AUTH_MODE"] == mode
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    with connection.environment("127.0.0.1:6379"):
        assert os.environ["RAY_AUTH_MODE"] == "disabled"


@pytest.mark.parametrize(
    ("nodes", "local", "shared", "refused"),
    [(2, True, False, True), (2, True, True, False), (2, False, False, False), (1, True, False, False)],
)
def test_a_local_store_is_refused_on_several_nodes(monkeypatch, nodes, local, shared, refused):
    found = [{"Alive": True}] * nodes + [{"Alive": False}]
    monkeypatch.setattr(ray, "nodes", lambda: found)
    monkeypatch.setattr(node_checks, "may_grow", lambda environment: False)
    store = SimpleNamespace(is_local=local, url="/runs")
    if not refused:
        return node_checks.check_store(store, shared)
    with pytest.raises(InputError, match="store /runs is a local path, but the cluster has 2 nodes"):
        node_checks.check_store(store, shared)


@pytest.mark.e2e
def test_a_cluster_of_two_nodes_gets_code_and_data_and_refuses_a_local_store(
    study, store, tmp_path, monkeypatch, folder
):
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "t" * 64)
    monkeypatch.setenv("PYTHONPATH", str(HERE))  # the fake stages; bbqrec and sweeps come with the driver
    monkeypatch.setenv("FAKE_STAGES", json.dumps({"seconds": 0.7}))
    connection._reload_authentication()
    copy = tmp_path / "only-here"
    shutil.copytree(folder, copy)
    plan = study(methods=("tiger", "bbqrec"), datasets=(copy,)).plan(store)
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "num_gpus": 1, "include_dashboard": False})
    try:
        cluster.add_node(num_cpus=1)
        resources, console = Resources(cluster=cluster.address), Console(file=io.StringIO())
        with pytest.raises(InputError, match="the cluster has 2 nodes"):
            launch(plan, store, resources, console=console, stages="fake_stages")
        assert not (Path(store.url) / "study").exists()
        resources = Resources(cluster=cluster.address, shared_store=True, cpus_per_run=1, gpus_per_run=0.5)
        ledger = launch(plan, store, resources, console=console, stages="fake_stages")
    finally:
        cluster.shutdown()
        monkeypatch.undo()
        connection._reload_authentication()
    assert ledger.complete
    begun = [entry for entry in diary(store.url) if entry["event"] == "begin"]
    assert len(begun) == 4 and all("runtime_resources" in entry["code"] for entry in begun)
    assert {entry["gpu"] for entry in begun} == {"0"}
    ended = {entry["key"]: entry["time"] for entry in diary(store.url) if entry["event"] == "end"}
    assert any(after["time"] < ended[before["key"]] for before, after in pairwise(begun))  # two had the GPU at a time
    assert store.has("dataset", next(iter(plan.folders)))


def test_tune_passes_no_keys_on(monkeypatch):
    """What it passes on Ray prints to its logs. Others are passed on as before."""
    from ray.tune.execution import class_cache

    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "planted")
    monkeypatch.setenv("RAY_CHDIR_TO_TRIAL_DIR", "0")

    def passed_on() -> dict[str, str]:
        made: list[dict] = []
        monkeypatch.setattr(
            ray, "remote", lambda runtime_env: made.append(runtime_env["env_vars"]) or (lambda cls: cls)
        )
        class_cache._ActorClassCache().get(object)
        return made[0]

    with credentials.kept_to_their_nodes():
        inside = passed_on()
    assert "AWS_SECRET_ACCESS_KEY" not in inside and inside["RAY_CHDIR_TO_TRIAL_DIR"] == "0"
    assert "AWS_SECRET_ACCESS_KEY" in passed_on(), "else this can go"


def test_a_local_dashboard_asks_for_the_user_s_own_token(monkeypatch, tmp_path):
    """Which is made if there is none, and nobody else can read; without a dashboard nobody needs to know it."""
    token = tmp_path / "new" / "token"
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(token))
    monkeypatch.setenv("RAY_AUTH_TOKEN", "mine")
    assert access(dashboard=True) == {"RAY_AUTH_MODE": "token"} and not token.exists()
    monkeypatch.delenv("RAY_AUTH_TOKEN")
    assert len({access(dashboard=False)["RAY_AUTH_TOKEN"] for _ in range(2)}) == 2 and not token.exists()
    assert access(dashboard=True) == {"RAY_AUTH_MODE": "token"}
    made = token.read_text()
    assert len(made) == 64 and token.stat().st_mode & 0o777 == 0o600
    access(dashboard=True)
    assert token.read_text() == made
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(token / "below-a-file"))
    with pytest.raises(
        InputError, match=r"token .*below-a-file cannot be written .*: name a file .*RAY_AUTH_TOKEN_PATH"
    ):
        access(dashboard=True)
