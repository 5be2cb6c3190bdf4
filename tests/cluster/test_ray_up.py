"""The files for `ray up`: Ray's own schema, the clouds' own schemas, and what must be true of every node."""

import copy
import json
import logging
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from cluster_files import CLUSTER, RAY_UP, ROOT, after, commands, load, versions

pytest.importorskip("jsonschema", reason="Ray checks cluster files with jsonschema")
from jsonschema import ValidationError
from ray.autoscaler._private.util import prepare_config, validate_config
from ray.scripts import scripts

CLOUDS = ("aws", "gcp")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR)


def prepared(config: dict[str, Any]) -> dict[str, Any]:
    """As `ray up` takes it: with Ray's defaults for what it leaves out. Raises what Ray raises."""
    done = prepare_config(copy.deepcopy(config))
    validate_config(done)
    return done


def everything_run(config: dict[str, Any]) -> list[list[str]]:
    texts = [text for key, value in config.items() if key.endswith("_commands") for text in value]
    return [words for text in texts for words in commands(text)]


@pytest.mark.parametrize("name", RAY_UP)
def test_ray_accepts_the_file(name: str) -> None:
    config = prepared(load(f"{name}.yaml"))
    assert config["head_node_type"] in config["available_node_types"]


@pytest.mark.parametrize("name", RAY_UP)
def test_ray_would_not_accept_a_misspelt_field(name: str) -> None:
    with pytest.raises(ValidationError, match="idle_timeout_minuets"):
        prepared({**load(f"{name}.yaml"), "idle_timeout_minuets": 5})


@pytest.mark.parametrize("name", RAY_UP)
def test_nothing_is_left_to_defaults_that_would_undo_it(name: str) -> None:
    """Ray's defaults for AWS and GCP install another Ray and open the dashboard to every address."""
    said = json.dumps(prepared(load(f"{name}.yaml")))
    assert "0.0.0.0" not in said
    assert "ray-wheels" not in said and "anaconda" not in said


@pytest.mark.parametrize("name", RAY_UP)
def test_ray_starts_with_the_token_and_a_dashboard_for_this_machine_only(name: str) -> None:
    config = load(f"{name}.yaml")
    for kind in ("head", "worker"):
        (text,) = [text for text in config[f"{kind}_start_ray_commands"] if "ray start" in text]
        assert "RAY_AUTH_MODE=token" in text
        (words,) = [rest for words in commands(text) if (rest := after(words, "ray"))]
        given = scripts.cli.commands["start"].make_context("start", words[1:]).params  # unknown options end here
        assert given["disable_usage_stats"]
        if kind == "head":
            assert given["head"] and given["port"] == 6379
            assert (given["dashboard_host"], given["dashboard_port"]) == ("127.0.0.1", 8265)
            assert given["autoscaling_config"] == "~/ray_bootstrap_config.yaml"
        else:
            assert given["address"] == "$RAY_HEAD_IP:6379"


@pytest.mark.parametrize("name", RAY_UP)
def test_nodes_get_the_token_and_all_that_the_package_is_built_from(name: str) -> None:
    mounts = load(f"{name}.yaml")["file_mounts"]
    assert mounts.pop("~/.ray/auth_token") == "~/.ray/auth_token"
    for remote, local in mounts.items():
        assert remote == f"~/bbqrec/{local}" and (ROOT / local).exists()
    packages = [pattern.rstrip("*") for pattern in PROJECT["tool"]["setuptools"]["packages"]["find"]["include"]]
    project = PROJECT["project"]
    needed = {*packages, "pyproject.toml", "constraints.txt", project["readme"], *project["license-files"]}
    assert set(mounts.values()) == needed


@pytest.mark.parametrize("name", RAY_UP)
def test_what_is_installed_has_the_versions_of_constraints_txt(name: str) -> None:
    installs = [words for words in everything_run(load(f"{name}.yaml")) if "install" in words and "pip" in words]
    assert len(installs) == (1 if name == "on_prem" else 2)
    for words in installs:
        assert words[words.index("--constraint") + 1] == "constraints.txt"
        wanted = [w for w in words[words.index("constraints.txt") + 1 :] if not w.startswith("-")]
        assert len(wanted) == 1
        extra = re.fullmatch(r"\.\[(\w+)\]", wanted[0])
        packages = PROJECT["project"]["optional-dependencies"][extra[1]] if extra else wanted
        for package in packages:
            assert re.split(r"[><=\[]", package)[0] in versions(), f"{package} has no version in constraints.txt"
    if name in CLOUDS:
        python = re.search(r"Python (3\.\d+)", (ROOT / "constraints.txt").read_text())
        assert python and f"--python {python[1]} " in (CLUSTER / f"{name}.yaml").read_text()


@pytest.mark.parametrize("name", RAY_UP)
def test_every_dependency_of_the_nodes_has_a_version(name: str) -> None:
    for dependency in PROJECT["project"]["dependencies"]:
        assert re.split(r"[><=\[]", dependency)[0].lower() in {package.lower() for package in versions()}


@pytest.mark.parametrize("name", CLOUDS)
def test_workers_come_and_go_and_the_head_runs_no_trials(name: str) -> None:
    config = prepared(load(f"{name}.yaml"))
    head, workers = config["available_node_types"]["head"], config["available_node_types"]["worker_gpu"]
    assert head["resources"] == {"CPU": 0} and "--num-cpus=0" in config["head_start_ray_commands"][-1]
    assert (workers["min_workers"], workers["resources"]["GPU"]) == (0, 1)
    assert config["max_workers"] > workers["max_workers"] > 1
    assert 0 < config["idle_timeout_minutes"] <= 15
    cheap = {"aws": {"InstanceMarketOptions": {"MarketType": "spot"}}}
    if name == "aws":
        assert cheap["aws"].items() <= workers["node_config"].items()
        assert "InstanceMarketOptions" not in head["node_config"]
        assert config["provider"]["cache_stopped_nodes"] is False
    else:
        assert workers["node_config"]["scheduling"]["provisioningModel"] == "SPOT"
        assert "scheduling" not in head["node_config"]


def test_on_prem_every_machine_works() -> None:
    """Autoscaler v2 counts the head as one of its only node type, so that one machine would stay out."""
    config = load("on_prem.yaml")
    (node_type,) = prepared(config)["available_node_types"].values()
    assert node_type["min_workers"] == node_type["max_workers"] == len(config["provider"]["worker_ips"])
    assert "RAY_enable_autoscaler_v2=0" in config["head_start_ray_commands"][-1]
    for kind in ("head", "worker"):  # 127.0.0.1 without a way to the internet
        assert "set -- $SSH_CONNECTION; ray start" in config[f"{kind}_start_ray_commands"][-1]
        assert "--node-ip-address=$3" in config[f"{kind}_start_ray_commands"][-1]


def test_aws_account_and_nodes_in_a_stand_in(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The template makes what the file asks for, and Ray starts both kinds of node with it (moto, not AWS)."""
    moto = pytest.importorskip("moto", reason="moto (the extra dev) stands in for AWS")
    import boto3
    from ray.autoscaler._private.aws.node_provider import AWSNodeProvider

    for key in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(key, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-west-2")
    monkeypatch.setenv("HOME", str(tmp_path))  # the key pair that Ray makes
    with moto.mock_aws():
        given = {"Bucket": "my-bucket", "SshFrom": "198.51.100.7/32"}
        boto3.client("cloudformation").create_stack(
            StackName="bbqrec",
            TemplateBody=(CLUSTER / "aws-account.yaml").read_text(),
            Capabilities=["CAPABILITY_NAMED_IAM"],
            Parameters=[{"ParameterKey": key, "ParameterValue": value} for key, value in given.items()],
        )
        (stack,) = boto3.client("cloudformation").describe_stacks()["Stacks"]
        group = stack["Outputs"][0]["OutputValue"]
        text = (CLUSTER / "aws.yaml").read_text()
        assert text.count("sg-0123456789abcdef0") == 1
        import yaml

        config = prepared(yaml.safe_load(text.replace("sg-0123456789abcdef0", group)))
        config = AWSNodeProvider.bootstrap_config(config)
        provider = AWSNodeProvider(config["provider"], config["cluster_name"])
        for kind, node_type in config["available_node_types"].items():
            provider.create_node(copy.deepcopy(node_type["node_config"]), {"ray-node-type": kind}, 1)
        ec2 = boto3.client("ec2")
        nodes = [node for some in ec2.describe_instances()["Reservations"] for node in some["Instances"]]
        profiles = {node["IamInstanceProfile"]["Arn"].split("/")[-1] for node in nodes}
        assert profiles == {"bbqrec-head", "bbqrec-worker"}
        assert {tuple(g["GroupId"] for g in node["SecurityGroups"]) for node in nodes} == {(group,)}
        (rules,) = [g["IpPermissions"] for g in ec2.describe_security_groups(GroupIds=[group])["SecurityGroups"]]
        outside = [(rule["FromPort"], rule["ToPort"], r["CidrIp"]) for rule in rules for r in rule["IpRanges"]]
        assert outside == [(22, 22, "198.51.100.7/32")]
        iam = boto3.client("iam")
        assert iam.list_role_policies(RoleName="bbqrec-worker")["PolicyNames"] == []
        (shared,) = iam.list_attached_role_policies(RoleName="bbqrec-worker")["AttachedPolicies"]
        version = iam.get_policy_version(PolicyArn=shared["PolicyArn"], VersionId="v1")["PolicyVersion"]["Document"]
        resources = {statement["Resource"] for statement in version["Statement"]}
        assert resources == {"arn:aws:s3:::my-bucket", "arn:aws:s3:::my-bucket/*"}


def test_aws_template_by_its_linter() -> None:
    pytest.importorskip("cfnlint", reason="cfn-lint (moto[server], in the extra dev) is not installed")
    from cfnlint.api import lint_file

    assert [str(match) for match in lint_file(CLUSTER / "aws-account.yaml")] == []


@pytest.mark.parametrize("kind", ["head", "worker_gpu"])
def test_aws_nodes_by_the_schema_of_the_service(kind: str) -> None:
    session = pytest.importorskip("botocore.session", reason="botocore (the extra s3) knows the fields of EC2")
    from botocore.validate import ParamValidator

    shape = session.get_session().get_service_model("ec2").operation_model("RunInstances").input_shape
    node = load("aws.yaml")["available_node_types"][kind]["node_config"]

    def complaints(config: dict[str, Any]) -> str:
        return ParamValidator().validate({**config, "MinCount": 1, "MaxCount": 1}, shape).generate_report()

    assert complaints(node) == ""
    assert "Unknown parameter" in complaints({**node, "InstanceTyp": "m6i.xlarge"})


@pytest.mark.parametrize("kind", ["head", "worker_gpu"])
def test_gcp_nodes_by_the_schema_of_the_service(kind: str) -> None:
    api = pytest.importorskip(
        "googleapiclient", reason="pip install -c constraints.txt google-api-python-client, which knows GCP's fields"
    )
    documents = Path(api.__file__).parent / "discovery_cache/documents"
    schemas = json.loads((documents / "compute.v1.json").read_text())["schemas"]
    node = load("gcp.yaml")["available_node_types"][kind]["node_config"]
    assert unknown(node, schemas["Instance"], schemas) == []
    planted = {**node, "scheduling": {"provisioningModel": "CHEAP", "preemptable": True}}
    assert unknown(planted, schemas["Instance"], schemas) == ["provisioningModel: CHEAP", "preemptable"]


def unknown(value: Any, schema: dict[str, Any], schemas: dict[str, Any]) -> list[str]:
    """What a discovery document does not know: fields and values of enumerations."""
    schema = schemas[schema["$ref"]] if "$ref" in schema else schema
    if isinstance(value, list):
        return [found for item in value for found in unknown(item, schema["items"], schemas)]
    if not isinstance(value, dict):
        return []
    found = []
    for key, inner in value.items():
        known = schema.get("properties", {}).get(key)
        if known is None:
            found.append(key)
        elif inner not in known.get("enum", [inner]):
            found.append(f"{key}: {inner}")
        else:
            found += unknown(inner, known, schemas)
    return found
