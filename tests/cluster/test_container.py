"""The container file: what it builds from, whom it runs as, and that a build gets nothing that it does not need."""

import re
import shutil
import subprocess
from pathlib import PurePosixPath

import pytest
from cluster_files import CLUSTER, ROOT

FILE = CLUSTER / "Containerfile"
KEYWORDS = {"ARG", "FROM", "RUN", "WORKDIR", "COPY", "ENV", "USER", "CMD", "LABEL", "EXPOSE", "ENTRYPOINT", "SHELL"}


def instructions() -> list[tuple[str, str]]:
    lines = [line for line in FILE.read_text().splitlines() if not line.lstrip().startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ")
    return [(line.split(maxsplit=1)[0], line.split(maxsplit=1)[1]) for line in joined.splitlines() if line.strip()]


def values(keyword: str) -> list[str]:
    return [rest for name, rest in instructions() if name == keyword]


def test_instructions_exist() -> None:
    assert {name for name, _ in instructions()} <= KEYWORDS


def test_built_from_a_pinned_image_with_the_python_of_constraints_txt() -> None:
    (image,) = [value.partition("=")[2] for value in values("ARG") if value.startswith("PYTHON_IMAGE=")]
    assert values("FROM") == ["${PYTHON_IMAGE}"]
    tag = image.rpartition(":")[2]
    python = re.search(r"Python (3\.\d+)", (ROOT / "constraints.txt").read_text())
    assert python and re.fullmatch(rf"{re.escape(python[1])}\.\d+-slim-\w+", tag)


def test_versions_are_those_of_constraints_txt() -> None:
    installs = re.findall(r"pip install[^;&]*", " ".join(values("RUN")))
    assert len(installs) == 2
    assert all("--constraint constraints.txt" in install for install in installs)


def test_runs_as_the_user_of_the_manifests() -> None:
    assert values("USER") == ["1000:1000"]
    after_user = [name for name, _ in instructions()][-1:]
    assert after_user == ["CMD"], "nothing is installed as that user, nothing is run as root"


@pytest.mark.parametrize(("accelerator", "status"), [("cpu", 0), ("cuda", 0), ("rocm", 2)])
def test_accelerator(accelerator: str, status: int) -> None:
    assert "ACCELERATOR=cpu" in values("ARG")
    (script,) = [run for run in values("RUN") if "ACCELERATOR" in run]
    stand_in = 'pip() { echo "pip $*"; }; ACCELERATOR="$1"; ' + script
    done = subprocess.run(["sh", "-c", stand_in, "sh", accelerator], capture_output=True, text=True)
    assert done.returncode == status, done.stderr
    assert ("download.pytorch.org/whl/cpu" in done.stdout) == (accelerator == "cpu")
    if status:
        assert "give cpu or cuda" in done.stderr


def test_copies_what_the_build_lets_in_and_nothing_else_gets_in() -> None:
    ignored = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and line[0] != "#"]
    assert ignored[0] == "*"
    let_in = {line[1:] for line in ignored if line.startswith("!")}
    copied = {source for value in values("COPY") for source in value.split()[:-1]}
    assert copied == let_in
    assert all((ROOT / source).exists() and PurePosixPath(source).parts[0] != ".." for source in copied)


def test_linter() -> None:
    if shutil.which("hadolint") is None:
        pytest.skip("hadolint is not installed")
    done = subprocess.run(["hadolint", FILE], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
