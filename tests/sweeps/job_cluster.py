"""A Ray cluster of one node with a dashboard, in processes of its own, for the tests of jobs."""

import contextlib
import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sweeps import connection

TOKEN = "t" * 64


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextlib.contextmanager
def job_cluster(**node: object) -> Iterator[str]:
    """The URL of the dashboard. What wants to talk to it finds the token in the environment."""
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "token")
        patch.setenv("RAY_AUTH_TOKEN", TOKEN)
        patch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")  # `python` of a job
        patch.delenv("PYTHONPATH", raising=False)  # what nodes know of us, they know from the job
        connection._reload_authentication()
        port, agent = free_port(), free_port()  # another Ray on this machine has the usual ones
        options = {"num_cpus": 2, "include_dashboard": True, "dashboard_port": port, **node}
        options |= {"dashboard_agent_listen_port": agent}
        cluster = Cluster(initialize_head=True, head_node_args=options)
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            cluster.shutdown()
    connection._reload_authentication()
