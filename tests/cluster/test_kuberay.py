"""The Kubernetes manifests: KubeRay's own schemas made strict, and what must hold in every pod."""

import copy
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cluster_files import CLUSTER, ROOT, load, versions

KUBERAY = "1.7.0"
VALIDATED = Path(__file__).parent / "kuberay_fields.txt"
"""The fields of both manifests when they last passed the schemas. Without the schemas no other is let in."""
CRDS = os.environ.get("BBQREC_KUBERAY_CRDS")
MANIFESTS = {"raycluster": "ray.io_rayclusters.yaml", "rayjob": "ray.io_rayjobs.yaml"}


def cluster_spec(name: str) -> dict[str, Any]:
    spec = load(f"kuberay/{name}.yaml")["spec"]
    return spec["rayClusterSpec"] if name == "rayjob" else spec


def pod_specs() -> Iterator[dict[str, Any]]:
    for name in MANIFESTS:
        spec = cluster_spec(name)
        for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"]):
            yield group["template"]
    yield load("kuberay/rayjob.yaml")["spec"]["submitterPodTemplate"]


def fields(value: Any, path: str = "") -> set[str]:
    """Every path of names, [] for any item of a list; below labels, limits and the like names are free."""
    free = path.endswith((".labels", ".limits", ".requests", ".rayStartParams", ".matchLabels"))
    if isinstance(value, dict) and not free:
        return {path or "."}.union(*(fields(inner, f"{path}.{key}") for key, inner in value.items()))
    if isinstance(value, list):
        return {path}.union(*(fields(item, f"{path}[]") for item in value))
    return {f"{path}: {type(value).__name__}"}


def manifest_fields() -> list[str]:
    return sorted(f"{name} {field}" for name in MANIFESTS for field in fields(load(f"kuberay/{name}.yaml")))


def strict(schema: Any) -> Any:
    """A CRD's schema that knows no other fields than those it names, as kubectl's strict validation does."""
    if isinstance(schema, list):
        return [strict(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    done = {key: strict(value) for key, value in schema.items()}
    if done.pop("x-kubernetes-int-or-string", False):
        done.pop("anyOf", None)
        done["type"] = ["integer", "string"]
    open_ended = done.get("x-kubernetes-preserve-unknown-fields") or "additionalProperties" in done
    if done.get("type") == "object" and isinstance(done.get("properties"), dict) and not open_ended:
        done["additionalProperties"] = False
    return done


def test_no_field_but_those_that_were_validated() -> None:
    head, *known = VALIDATED.read_text().splitlines()
    assert f"KubeRay {KUBERAY}" in head
    new = sorted(set(manifest_fields()) - set(known))
    assert new == [], "check them against the schemas (cluster/README.md), then add them to kuberay_fields.txt"


@pytest.mark.skipif(
    CRDS is None, reason="BBQREC_KUBERAY_CRDS names no folder with KubeRay's schemas (cluster/README.md)"
)
@pytest.mark.parametrize("name", MANIFESTS)
def test_kuberay_s_schema(name: str) -> None:
    jsonschema = pytest.importorskip("jsonschema", reason="jsonschema reads the schemas")
    import yaml

    text = (Path(str(CRDS)) / MANIFESTS[name]).read_text()
    (version,) = [v for v in yaml.safe_load(text)["spec"]["versions"] if v["name"] == "v1"]
    schema = strict(version["schema"]["openAPIV3Schema"])
    schema["properties"]["metadata"] = {"type": "object"}
    check = jsonschema.Draft202012Validator(schema)
    manifest = load(f"kuberay/{name}.yaml")
    assert [error.message for error in check.iter_errors(manifest)] == []
    for plant in (misspelt, wrong_type, wrong_choice):
        bad = copy.deepcopy(manifest)
        plant(bad["spec"]["rayClusterSpec"] if name == "rayjob" else bad["spec"])
        assert not check.is_valid(bad), plant.__name__


def misspelt(spec: dict[str, Any]) -> None:
    spec["headGroupSpec"]["template"]["spec"]["containers"][0]["resource"] = {}


def wrong_type(spec: dict[str, Any]) -> None:
    spec["workerGroupSpecs"][0]["maxReplicas"] = "4"


def wrong_choice(spec: dict[str, Any]) -> None:
    spec["authOptions"]["mode"] = "tokens"


def test_a_new_field_would_be_noticed() -> None:
    manifest = load("kuberay/rayjob.yaml")
    before = fields(manifest)
    manifest["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]["maxReplica"] = 4
    assert fields(manifest) - before == {".spec.rayClusterSpec.workerGroupSpecs[].maxReplica: int"}


def test_both_manifests_have_the_same_cluster() -> None:
    assert cluster_spec("raycluster") == cluster_spec("rayjob")


@pytest.mark.parametrize("name", MANIFESTS)
def test_token_versions_and_no_way_in_from_outside(name: str) -> None:
    spec = cluster_spec(name)
    assert spec["rayVersion"] == versions()["ray"]
    assert spec["authOptions"] == {"mode": "token", "secretName": "bbqrec-ray-token"}
    assert (spec["headGroupSpec"]["serviceType"], spec["headGroupSpec"]["enableIngress"]) == ("ClusterIP", False)
    assert (spec["autoscalerOptions"]["version"], spec["enableInTreeAutoscaling"]) == ("v2", True)
    assert spec["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0", "the head runs no trials"
    (workers,) = spec["workerGroupSpecs"]
    (container,) = workers["template"]["spec"]["containers"]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert workers["minReplicas"] == 0 < workers["maxReplicas"]


def test_pods_run_as_nobody_special() -> None:
    for pod in pod_specs():
        security = pod["spec"]["securityContext"]
        assert security["runAsNonRoot"] and (security["runAsUser"], security["runAsGroup"]) == (1000, 1000)
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in pod["spec"]["containers"]:
            inner = container["securityContext"]
            assert inner == {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
            assert not any("value" in variable and "TOKEN" in variable["name"] for variable in container.get("env", []))


def test_policy_and_monitor_choose_our_pods() -> None:
    chosen = load("kuberay/network-policy.yaml")["spec"]["podSelector"]["matchLabels"]
    assert chosen == load("kuberay/monitoring.yaml")["spec"]["selector"]["matchLabels"]
    for pod in pod_specs():
        assert chosen.items() <= pod["metadata"]["labels"].items()
    (endpoint,) = load("kuberay/monitoring.yaml")["spec"]["podMetricsEndpoints"]
    for name in MANIFESTS:
        spec = cluster_spec(name)
        for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"]):
            ports = {
                port["name"]: port["containerPort"] for port in group["template"]["spec"]["containers"][0]["ports"]
            }
            assert ports[endpoint["port"]] == 8080


def test_policy_lets_in_our_pods_the_operator_and_prometheus() -> None:
    spec = load("kuberay/network-policy.yaml")["spec"]
    assert spec["policyTypes"] == ["Ingress"]
    ports = [[port["port"] for port in rule.get("ports", [])] for rule in spec["ingress"]]
    assert ports == [[], [8265], [8080]]
    assert all("podSelector" in peer for rule in spec["ingress"] for peer in rule["from"])


def test_job_ends_and_is_tried_again() -> None:
    spec = load("kuberay/rayjob.yaml")["spec"]
    assert spec["shutdownAfterJobFinishes"] and spec["backoffLimit"] >= 1
    program = next(word for word in spec["entrypoint"].split() if word.endswith(".py"))
    assert (ROOT / program.removeprefix("/opt/bbqrec/")).exists()
    assert "WORKDIR /opt/bbqrec" in (CLUSTER / "Containerfile").read_text()
