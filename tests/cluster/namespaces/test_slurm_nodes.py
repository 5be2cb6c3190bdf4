"""cluster/slurm/ablations.sbatch as a job of a real Slurm: three slurmd, a controller and munge, a shared folder."""

import shutil
import sys
from pathlib import Path

import pytest
from nodes import ROOT, TOKEN, Network
from studies import words

from bbqrec.store import Store

pytestmark = pytest.mark.namespaces

CONF = """
ClusterName=namespaces
SlurmctldHost=node1
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CredType=cred/munge
GresTypes=gpu
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
MpiDefault=none
SlurmdParameters=config_overrides
StateSaveLocation=/tmp/slurm
SlurmdSpoolDir=/tmp/slurm
SlurmctldPidFile=/run/slurmctld.pid
SlurmdPidFile=/run/slurmd.pid
NodeName=node[1-3] CPUs=1
PartitionName=all Nodes=ALL Default=YES
"""
METHODS = ("bbqrec/no-u", "sasrec")


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    """What all nodes see at /mnt: the checkout and Slurm's configuration."""
    for tool in ("slurmctld", "slurmd", "munged", "sbatch"):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed (slurm-wlm)")
    for part in ("bbqrec", "sweeps", "analysis", "cluster"):
        shutil.copytree(ROOT / part, tmp_path / "shared" / part, ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "shared/slurm.conf").write_text(CONF)
    key = tmp_path / "shared/munge.key"
    key.write_bytes(b"k" * 128)
    key.chmod(0o600)
    return tmp_path / "shared"


def test_the_sbatch_file_on_three_slurmd(shared, single_node, tmp_path):
    with Network(tmp_path / "nodes", shared=shared) as network:
        conf = {"SLURM_CONF": "/mnt/slurm.conf", "RAY_gcs_rpc_server_reconnect_timeout_s": "30"}  # not 60, at the end
        for node in network.nodes:
            node.run("mkdir", "-p", "/run/munge", "/tmp/slurm")
            options = ("--key-file=/mnt/munge.key", "--log-file=/tmp/munge.log", "--seed-file=/tmp/munge.seed")
            node.start("munged", "--foreground", "--force", *options, output=node.path("/tmp/munged.txt"))
        head = network.nodes[0]
        head.start("slurmctld", "-D", "-f", "/mnt/slurm.conf", output=head.path("/tmp/slurmctld.txt"), **conf)
        for node in network.nodes:
            command = ("slurmd", "-D", "-N", node.name, "-f", "/mnt/slurm.conf")
            node.start(*command, output=node.path("/tmp/slurmd.txt"), **conf)
        head.run("bash", "-c", "until sinfo -h -t idle -o %D | grep -q 3; do sleep 0.5; done", seconds=60, **conf)
        about = {**conf, "BBQREC_VENV": str(Path(sys.executable).parents[1]), "BBQREC_STORE": "/mnt/runs"}
        options = words("/mnt/runs", METHODS)[2:]
        sbatch = "cd /mnt && sbatch --wait --nodes=3 --cpus-per-task=1 --gpus-per-node=0 cluster/slurm/ablations.sbatch"
        job = head.run("bash", "-c", sbatch + ' "$@"', "-", *options, seconds=400, check=False, **about)
        log = "".join(path.read_text() for path in shared.glob("bbqrec-ablations-*.log"))
        assert job.returncode == 0, job.stdout + job.stderr + log
        assert "cluster of 3 nodes, 3 CPUs" in log and "tables and figures of study" in log
        assert TOKEN not in log
    single_node.check_same(Store(shared / "runs"), METHODS)
