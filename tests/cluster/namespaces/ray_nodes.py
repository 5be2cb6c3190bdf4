"""Ray on the nodes of a network, each started by the command that a person would give there, with the token."""

import subprocess
import time
from collections.abc import Mapping

from nodes import ROOT, Network, Node, kill_tree

PORT = 6379
NOTICE = {
    "RAY_health_check_initial_delay_ms": "2000",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "3000",
    "RAY_health_check_failure_threshold": "4",
}
"""A node that falls silent is given up after 16 s instead of Ray's 65. Read by the head alone."""

ALIVE = """
import sys, time, ray
ray.init(address=sys.argv[1], logging_level="ERROR", log_to_driver=False)
while sum(node["Alive"] for node in ray.nodes()) != int(sys.argv[2]):
    time.sleep(0.2)
"""


class RayNodes:
    """A cluster of all nodes of a network, the first being its head. `environment` is Ray's, and so the workers'."""

    def __init__(self, network: Network, cpus: int = 1, environment: Mapping[str, str] | None = None) -> None:
        self.network, self.head, self._cpus = network, network.nodes[0], cpus
        self.address = f"{self.head.address}:{PORT}"
        self.environment = {**NOTICE, **(environment or {})}
        self._raylets: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, count: int | None = None) -> None:
        """Starts what does not run, of the first `count` nodes; returns when the head knows that many."""
        nodes = self.network.nodes[:count]
        for node in nodes:
            if node.name not in self._raylets or self._raylets[node.name].poll() is not None:
                self._start(node)
        self.wait(len(nodes))

    def wait(self, count: int, seconds: float = 90) -> None:
        """Until so many nodes are alive."""
        self.head.run("python", "-c", ALIVE, self.address, count, seconds=seconds)

    def kill(self, node: Node) -> float:
        """Ends Ray on a node, workers included, without a word to anybody; the time."""
        raylet = self._raylets.pop(node.name)
        kill_tree(raylet.pid)
        raylet.wait(timeout=30)
        return time.time()

    def gone(self, node: Node) -> bool:
        """Ray on this node has ended by itself."""
        return self._raylets[node.name].poll() is not None

    def study(self, node: Node, name: str, *words: object, **environment: str) -> subprocess.Popen[bytes]:
        """Starts a study's command on a node; it prints to /tmp/`name`.txt there, tables go to /tmp/`name`."""
        out = ("--out", f"/tmp/{name}/out", "--logs", f"/tmp/{name}/logs")
        about = {"PYTHONPATH": str(ROOT), **self.environment, **environment}
        command = ("python", ROOT / "sweeps/ablations.py", "--cluster", self.address, *words, *out)
        return node.start(*command, output=node.path(f"/tmp/{name}.txt"), folder="/tmp", **about)

    def _start(self, node: Node) -> None:
        role = ("--head", "--port", PORT, "--dashboard-host", "127.0.0.1")
        role = role if node is self.head else ("--address", self.address)
        common = (
            "--node-ip-address",
            node.address,
            "--num-cpus",
            self._cpus,
            "--object-store-memory",
            10**8,
            "--block",
        )
        command = ("ray", "start", *role, *common)
        self._raylets[node.name] = node.start(*command, output=node.path("/tmp/ray.txt"), **self.environment)
