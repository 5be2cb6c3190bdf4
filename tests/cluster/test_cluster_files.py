"""What holds for every file of cluster/: commands that exist, no open doors, no secrets, five lines a platform."""

import ipaddress
import re
from pathlib import Path

import pytest
from cluster_files import CLUSTER, FILES, RAY_UP, ROOT, after, commands, load, parse_sweep, versions
from ray.scripts import scripts

README = (CLUSTER / "README.md").read_text()
PLATFORMS = ("AWS", "Google Cloud", "Machines of your own", "Kubernetes", "Slurm")

SECRETS = {
    "an AWS key": r"\b(AKIA|ASIA)[0-9A-Z]{16}\b",
    "a private key": r"BEGIN [A-Z ]*PRIVATE KEY",
    "a GCP key": r"AIza[0-9A-Za-z_-]{35}|\"private_key\"",
    "a GitHub, Slack or Hugging Face token": r"\b(gh[pousr]_|xox[abp]-|hf_)[0-9A-Za-z]{10,}",
    "a value under a telling name": (
        r"(?i)(password|passwd|secret_access_key|auth_token|api_key)[\"']?\s*[:=]\s*[\"']?[^\s\"'$~{<(]"
    ),
    "a Kubernetes secret with its contents": r"(?m)^kind: Secret|^stringData:",
    "something long and random": r"\b[0-9a-f]{32,}\b|[A-Za-z0-9+]{60,}",
}


def secrets(text: str) -> list[str]:
    harmless = text.replace("~/.ray/auth_token: ~/.ray/auth_token", "")
    return [what for what, pattern in SECRETS.items() if re.search(pattern, harmless)]


def open_doors(text: str) -> list[str]:
    """Addresses that stand for every interface or every client, and Kubernetes services that face outwards."""
    addresses = r"\b0\.0\.0\.0(?:/0)?|(?<![\w:])::(?:/0)?(?![\w:])"
    pattern = addresses + r"|\bLoadBalancer\b|\bNodePort\b|hostNetwork: true|enableIngress: true"
    return re.findall(pattern, text)


def section(name: str) -> str:
    found = re.search(rf"^## {name}\n(.*?)(?=^## |\Z)", README, flags=re.S | re.M)
    assert found, f"README.md has no section {name}"
    return found[1]


def blocks(text: str) -> list[str]:
    return re.findall(r"^```bash\n(.*?)^```$", text, flags=re.S | re.M)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_no_secrets(path: Path) -> None:
    assert secrets(path.read_text()) == []


def test_secrets_would_be_found() -> None:
    for planted in (
        "aws_access_key_id: AKIAIOSFODNN7EXAMPLE",
        "-----BEGIN OPENSSH PRIVATE KEY-----",
        "export RAY_AUTH_TOKEN=" + "0f" * 32,
        "password: hunter2",
        "kind: Secret",
        "  auth_token: letmein",
    ):
        assert secrets(planted), planted
    assert secrets("RAY_AUTH_TOKEN=$(python -c 'import secrets')") == []


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_nothing_listens_beyond_its_machine_but_the_head_pod(path: Path) -> None:
    """In a pod localhost is the pod; there the operator must reach the dashboard, behind token and policy."""
    found = open_doors(path.read_text())
    if path.name in ("raycluster.yaml", "rayjob.yaml"):
        assert found == ["0.0.0.0"] and "dashboard-host: 0.0.0.0" in path.read_text()
    else:
        assert found == []


def test_open_doors_would_be_found() -> None:
    for planted in ("--dashboard-host=0.0.0.0", "CidrIp: 0.0.0.0/0", "host: ::", "type: LoadBalancer"):
        assert open_doors(planted), planted
    assert open_doors("AWS::S3::Bucket arn:aws:s3:::bucket") == []


def test_addresses_to_be_replaced_are_those_reserved_for_examples() -> None:
    example = [
        ipaddress.ip_network(net) for net in ("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24", "127.0.0.0/8")
    ]
    for path in FILES:
        for address in re.findall(r"\b\d{1,3}(?:\.\d{1,3}){3}\b", path.read_text()):
            known = address == "0.0.0.0" or any(ipaddress.ip_address(address) in net for net in example)
            assert known, f"{path.name}: {address}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_versions_are_those_of_constraints_txt(path: Path) -> None:
    pins = {package.lower(): version for package, version in versions().items()}
    for package, version in re.findall(r"\b([A-Za-z][\w.-]*)(?:\[[\w,]+\])?==(\d[\w.]*)", path.read_text()):
        assert pins.get(package.lower()) == version, f"{package}=={version}"
    for version in re.findall(r"rayVersion: \"?([\d.]+)", path.read_text()):
        assert version == pins["ray"]


def shell_texts() -> dict[str, str]:
    """Shell text by the file it stands in: blocks of the README, examples in comments, the job's entrypoint."""
    texts = {"README.md": "\n".join(blocks(README)), "rayjob.yaml": load("kuberay/rayjob.yaml")["spec"]["entrypoint"]}
    for path in (CLUSTER / "Containerfile", CLUSTER / "slurm/ablations.sbatch"):
        texts[path.name] = "\n".join(re.findall(r"^# {3}(.*?)(?: {4,}.*)?$", path.read_text(), flags=re.M))
    return texts


def test_our_commands_are_taken_by_our_programs() -> None:
    for name, text in shell_texts().items():
        parsed = 0
        for words in commands(text):
            batch = after(words, "slurm/ablations.sbatch")  # hands on what follows it, and says where the store is
            options = parse_sweep(words if batch is None else ["sweeps/ablations.py", "--cluster", *batch])
            if options is None:
                continue
            parsed += 1
            away = options.cluster or options.submit
            assert options.dry_run or away, f"{name}: without --cluster it would run on one machine alone"
            if options.store.startswith(("s3://", "gs://")):
                assert options.gpus_per_run and options.cpus_per_run, f"{name}: no GPU is there yet when it starts"
            elif batch is None and name != "ablations.sbatch":
                assert options.shared_store or options.dry_run, f"{name}: a store of one node"
        assert parsed, f"{name}: no command of ours found"


def test_a_wrong_option_would_be_found() -> None:
    with pytest.raises(SystemExit):
        parse_sweep(["python", "sweeps/ablations.py", "--clutser"])


@pytest.mark.parametrize("platform", PLATFORMS)
def test_five_lines_from_nothing_to_tables(platform: str) -> None:
    lines = [
        line for line in blocks(section(platform))[0].replace("\\\n", " ").splitlines() if not line.startswith("#")
    ]
    assert len(lines) == 5
    assert re.search(r"sweeps/ablations\.py|rayjob\.yaml|ablations\.sbatch", "\n".join(lines))


def test_ray_s_commands_in_the_readme_exist() -> None:
    seen = set()
    for text in [*blocks(README), *re.findall(r"`(ray [^`]*cluster/[^`]*)`", README)]:
        for words in commands(text):
            rest = after(words, "ray")
            if rest and words[0] not in ("kubectl", "helm") and rest[0] in scripts.cli.commands:
                command = scripts.cli.commands[rest[0]]
                if rest[0] == "job":
                    rest = rest[1:]
                    command = command.commands[rest[0]]
                command.make_context(rest[0], list(rest[1:]), resilient_parsing=False)
                seen.add(rest[0])
    assert {"up", "exec", "dashboard", "down", "get-auth-token"} <= seen


def test_files_that_the_readme_names_exist() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        if "://" not in target:
            assert (CLUSTER / target).exists(), target
    for name in re.findall(r"\bcluster/[\w/.-]+\w", README):
        assert (ROOT / name).exists(), name
    for name in RAY_UP:
        assert f"ray up cluster/{name}.yaml" in README.replace("ray up -y", "ray up")
    assert load("on_prem.yaml")["cluster_name"] == "bbqrec"
