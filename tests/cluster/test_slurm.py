"""The sbatch file, run with stand-ins for Slurm and Ray."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from cluster_files import CLUSTER, parse_sweep
from ray.scripts import scripts

SCRIPT = CLUSTER / "slurm/ablations.sbatch"
TOKEN = "the-token"


def run_script(folder: Path, *arguments: str, **environment: str) -> tuple[list[str], dict[str, str]]:
    """The words that srun gets, and its environment."""
    tools = folder / "venv/bin"
    tools.mkdir(parents=True)
    for name, body in {
        "srun": f'printf "%s\\0" "$@" > {folder}/words; env -0 > {folder}/environment',
        "ray": f'[ "$*" = "get-auth-token --generate" ] && echo new >&2 && printf {TOKEN}',
        "hostname": "echo '10.1.2.3 fe80::1 '",
    }.items():
        (tools / name).write_text(f"#!/bin/bash\n{body}\n")
        (tools / name).chmod(0o755)
    slurm = {"SLURM_SUBMIT_DIR": str(folder), "SLURM_JOB_ID": "1234567", "SLURM_JOB_NUM_NODES": "3"}
    slurm |= {"SLURM_CPUS_PER_TASK": "8", "BBQREC_VENV": str(folder / "venv"), "PATH": os.environ["PATH"]}
    done = subprocess.run(
        ["bash", SCRIPT, *arguments], env={**slurm, **environment}, cwd="/", capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert TOKEN not in done.stdout + done.stderr
    words = (folder / "words").read_text().split("\0")[:-1]
    return words, dict(item.split("=", 1) for item in (folder / "environment").read_text().split("\0")[:-1])


def test_starts_ray_on_every_node_and_our_study_on_the_first(tmp_path: Path) -> None:
    words, environment = run_script(tmp_path, "--dataset", "data/toys", "--seeds", "3", BBQREC_STORE="/shared/runs")
    assert {"--nodes=3", "--ntasks-per-node=1", "--cpus-per-task=8"} <= set(words)
    start, entrypoint = words.index("symmetric-run"), words.index("--")
    command = scripts.cli.commands["symmetric-run"]
    given = command.make_context("symmetric-run", [*words[start + 1 : entrypoint], "--", "x"]).params
    assert (given["address"], given["min_nodes"]) == ("10.1.2.3:24567", 3)
    start_options = words[words.index("--num-cpus") : entrypoint]
    started = scripts.cli.commands["start"].make_context("start", start_options).params
    assert (started["num_cpus"], started["dashboard_host"]) == (8, "127.0.0.1")
    options = parse_sweep(words[entrypoint + 1 :])
    assert (options.cluster, options.store, options.shared_store) == ("10.1.2.3:24567", "/shared/runs", True)
    assert ([str(path) for path in options.dataset], options.seeds) == (["data/toys"], 3)
    assert (environment["RAY_AUTH_MODE"], environment["RAY_AUTH_TOKEN"]) == ("token", TOKEN)
    assert TOKEN not in words, "a command line is readable to every user of a node"


def test_store_and_address_have_defaults_that_can_be_changed(tmp_path: Path) -> None:
    words, _ = run_script(tmp_path, BBQREC_HEAD_IP="192.0.2.7")
    options = parse_sweep(words[words.index("--") + 1 :])
    assert (options.cluster, options.store) == ("192.0.2.7:24567", f"{tmp_path}/runs")


def test_only_under_slurm() -> None:
    done = subprocess.run(["bash", SCRIPT], env={"PATH": os.environ["PATH"]}, capture_output=True, text=True)
    assert done.returncode != 0 and "submit this file with sbatch" in done.stderr


def test_slurm_reads_its_options() -> None:
    """Slurm stops looking at the first line that is a command."""
    lines = SCRIPT.read_text().splitlines()
    assert lines[0] == "#!/bin/bash"
    options = [line for line in lines if line.startswith("#SBATCH")]
    first = next(index for index, line in enumerate(lines) if line and not line.startswith("#"))
    assert all(line in lines[:first] for line in options)
    names = {re.match(r"#SBATCH --([a-z-]+)", line)[1] for line in options}
    assert {"nodes", "ntasks-per-node", "cpus-per-task", "exclusive", "requeue"} <= names


def test_shell() -> None:
    assert subprocess.run(["bash", "-n", SCRIPT]).returncode == 0
    if shutil.which("shellcheck") is None:
        pytest.skip("shellcheck is not installed")
    checked = subprocess.run(["shellcheck", SCRIPT], capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout
