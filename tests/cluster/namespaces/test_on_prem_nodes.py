"""cluster/on_prem.yaml by `ray up` over ssh: three machines with sshd and a user of their own, from nothing to tables.

They have no way to the internet. What pip would fetch is there already, in an environment that nobody may write to; the
lines of the file that make a node's own environment and install into it run as they are.
"""

import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from harness import wait_for
from nodes import ROOT, TOKEN, Network, Node, namesakes
from ray_nodes import ALIVE
from studies import words

from bbqrec.store import Store

pytestmark = pytest.mark.namespaces

METHODS = ("bbqrec/no-u", "sasrec")
HOME = "/tmp/home/bbqrec"
SSHD = """
HostKey /tmp/ssh/host_key
AuthorizedKeysFile /tmp/ssh/authorized_keys
StrictModes no
UsePAM no
PermitRootLogin yes
PidFile /run/sshd.pid
"""
PIP = """
[global]
no-index = true
no-build-isolation = false
"""
"""Nothing to download, and, which is how pip spells it, no isolation: setuptools is there, too."""


@pytest.fixture
def network(tmp_path: Path) -> Iterator[Network]:
    for tool in ("/usr/sbin/sshd", "ssh", "ssh-keygen", "rsync"):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed")
    # A name and a home of its own; the number is root's, since this machine's Python may lie where only root reads.
    # It stands before root: ssh looks for ~ in the first line of a number.
    people = {"bbqrec": (0, HOME), "root": (0, "/root"), "sshd": (74, "/run/sshd")}
    passwd = "".join(f"{name}:x:{number}:{number}::{home}:/bin/bash\n" for name, (number, home) in people.items())
    files = {"passwd": passwd, "shadow": "".join(f"{name}:*:19000::::::\n" for name in people)}
    (tmp_path / "shared").mkdir()
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / "key")], check=True)
    with Network(tmp_path / "nodes", 4, shared=tmp_path / "shared", files=files) as network:
        for node in network.nodes[:3]:
            furnish(node, tmp_path / "key.pub")
        yield network


def furnish(node: Node, key: Path) -> None:
    """What the head of the file asks of a machine, and what its pip would fetch."""
    ssh = node.path("/tmp/ssh")
    ssh.mkdir()
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(ssh / "host_key")], check=True)
    shutil.copy(key, ssh / "authorized_keys")
    (ssh / "sshd_config").write_text(SSHD)
    node.run("mkdir", "-p", "/run/sshd", f"{HOME}/bbqrec", f"{HOME}/.config/pip")
    node.run("cp", "-r", "/etc/skel/.", HOME)  # of which a shell knows ~/.local/bin
    node.run(sys.executable, "-m", "venv", "--without-pip", f"{HOME}/bbqrec/.venv")  # pip is among what is there
    (inside,) = node.path(f"{HOME}/bbqrec/.venv").glob("lib/python3.*/site-packages")
    (inside / "there.pth").write_text(sysconfig.get_path("purelib") + "\n")
    ray = node.path(f"{HOME}/bbqrec/.venv/bin/ray")
    ray.write_text(f"#!{HOME}/bbqrec/.venv/bin/python\nfrom ray.scripts.scripts import main\nmain()\n")
    ray.chmod(0o755)
    node.path(f"{HOME}/.config/pip/pip.conf").write_text(PIP)
    node.start("/usr/sbin/sshd", "-D", "-f", "/tmp/ssh/sshd_config", output=node.path("/tmp/sshd.txt"))


def test_on_prem_by_ray_up(network, single_node, tmp_path):
    """The lines of cluster/README.md, given on a fourth machine, which is none of the cluster."""
    *machines, laptop = network.nodes
    head, (first, *others) = machines[0], [node.address for node in machines]
    config = yaml.safe_load((ROOT / "cluster/on_prem.yaml").read_text())
    config["provider"] |= {"head_ip": first, "worker_ips": others}
    config["auth"]["ssh_private_key"] = "/tmp/key"
    laptop.path("/tmp/on_prem.yaml").write_text(yaml.safe_dump(config))
    shutil.copy(tmp_path / "key", laptop.path("/tmp/key"))

    def given(*line: object, seconds: float = 200) -> str:
        done = laptop.run("env", f"--chdir={ROOT}", *line, seconds=seconds)
        return done.stdout + done.stderr

    given("ray", "up", "-y", "/tmp/on_prem.yaml")
    head.run("python", "-c", ALIVE, f"{first}:6379", 3)
    study = " ".join([*words("/mnt/runs", METHODS), "--shared-store", "--cpus-per-run", "1"])
    command = f"cd bbqrec && .venv/bin/python sweeps/ablations.py --cluster {study}"
    printed = given("ray", "exec", "/tmp/on_prem.yaml", command)
    assert "tables and figures of study" in printed and TOKEN not in printed  # progress is drawn, as on any terminal
    given("ray", "rsync-down", "/tmp/on_prem.yaml", "bbqrec/out/", "/tmp/out/")
    assert laptop.path("/tmp/out/rows.csv").exists()
    single_node.check_same(Store(tmp_path / "shared/runs"), METHODS)
    for node in machines:
        code = (f"{HOME}/bbqrec/.venv/bin/python", "-c", "import bbqrec; print(bbqrec.__file__)")
        assert node.run("env", "--chdir=/tmp", *code).stdout == f"{HOME}/bbqrec/bbqrec/__init__.py\n"
        assert node.path(f"{HOME}/.ray/auth_token").stat().st_mode & 0o077 == 0
    said = given("ray", "down", "-y", "/tmp/on_prem.yaml")
    assert "command not found" not in said
    wait_for(lambda: not list(namesakes(head, "/raylet/raylet")), 60)
