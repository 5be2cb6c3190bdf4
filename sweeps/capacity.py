"""What a cluster has, and what it may get: machines, and how runs are shared out on them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ray
import yaml

Machine = tuple[float, float]
"""CPUs and GPUs of a node."""
MONITOR = "monitor.py"
"""Ray's process that starts and stops nodes."""
CONFIG = "--autoscaling-config="
"""Its option with the `ray up` file."""
KUBERAY = "KUBERAY_GEN_RAY_START_CMD"
"""Variable that KubeRay sets in its pods."""


def machines() -> list[Machine]:
    """Each node that can run anything."""
    found = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return [(node["CPU"], node.get("GPU", 0.0)) for node in found if node.get("CPU")]


def to_come() -> list[Machine]:
    """A machine of each kind that the autoscaler may start, as far as the head's own processes and files tell.

    On Kubernetes they do not.
    """
    kinds = [group.resources for group in _reported() if group.max_count]
    config = _autoscaling_config()
    types: dict[str, Any] = config.get("available_node_types") or {}
    for name, kind in types.items():
        if name != config.get("head_node_type") and kind.get("max_workers", 1):
            kinds.append(kind.get("resources") or {})
    return [(float(kind["CPU"]), float(kind.get("GPU", 0))) for kind in map(dict, kinds) if kind.get("CPU")]


def may_grow(environment: Mapping[str, str]) -> bool:
    """Whether nodes may come by themselves: there is an autoscaler, or nothing yet that could run anything."""
    return KUBERAY in environment or not machines() or bool(_reported()) or _grows(_autoscaling_config())


def shared_out(
    pool: Sequence[Machine], present: Sequence[Machine], runs: int, gpus: float | None, cpus: float | None
) -> tuple[float, float]:
    """CPUs and GPUs of each of the `runs` that are to fill the machines, where none are given. `pool` has those
    that are present and those to come.

    With GPUs a run gets the CPUs that go with its share of them, and nothing runs on machines without one.
    """
    if gpus is None:
        gpus = 1.0 if any(g for _, g in pool) else 0.0
    if cpus is not None:
        return cpus, gpus
    with_gpus = [(c, g) for c, g in pool if gpus and g >= gpus]
    if with_gpus:
        return max(1, min(c // max(1, int(g / gpus + 1e-9)) for c, g in with_gpus)), gpus
    counted = present or pool
    total, smallest = sum(c for c, _ in counted), min((c for c, _ in counted), default=1)
    return max(1, min(total // max(runs, 1), smallest)), gpus


def slots(present: Sequence[Machine], cpus: float, gpus: float) -> int:
    """How many runs of that size fit side by side."""
    return sum(int(min(c / cpus, g / gpus if gpus else c / cpus) + 1e-9) for c, g in present)


def in_words(present: Sequence[Machine]) -> str:
    """3 nodes, 24 CPUs, 2 GPUs."""
    cpus, gpus = sum(c for c, _ in present), sum(g for _, g in present)
    counts = ((len(present), "node"), (cpus, "CPU"), (gpus, "GPU"))
    return ", ".join(counted(count, noun) for count, noun in counts)


def counted(count: float, noun: str) -> str:
    """1 node, 2 nodes, 0.5 GPUs."""
    return f"{count:g} {noun}{'' if count == 1 else 's'}"


def _reported() -> list[Any]:
    """The kinds of nodes that a managed cluster reports to Ray."""
    config = ray._private.state.state.get_cluster_config()
    return [] if config is None else list(config.node_group_configs)


def _grows(config: dict[str, Any]) -> bool:
    return bool(config) and config.get("max_workers", 1) > 0


def _autoscaling_config() -> dict[str, Any]:
    """The `ray up` file of this cluster, {} without one: its path is an option of a process on the head, where drivers
    run."""
    import psutil  # Ray's own copy, which it puts on the path

    head = ray.get_runtime_context().gcs_address
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or []
        paths = [word.removeprefix(CONFIG) for word in words if word.startswith(CONFIG)]
        if paths and f"--gcs-address={head}" in words and any(word.endswith(MONITOR) for word in words):
            try:
                return yaml.safe_load(Path(paths[0]).expanduser().read_text(encoding="utf-8")) or {}
            except (OSError, yaml.YAMLError):
                return {}
    return {}
