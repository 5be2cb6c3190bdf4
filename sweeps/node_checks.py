"""Whether every node of a cluster can take part: the driver's versions, and the driver's store.

Those that are there are asked before a study starts; one that joins later is found out by the first run that it gets.
"""

import contextlib
import importlib.util
import os
import platform
import re
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from importlib import metadata
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from bbqrec import files
from bbqrec.errors import InputError
from bbqrec.files import Files, one_line
from bbqrec.store import Store
from sweeps.capacity import may_grow

EQUAL = ("ray", "torch", "numpy")
"""What must have the driver's version: results depend on it."""
NEEDED = ("fsspec", "jaxtyping", "pandas", "pyarrow", "rich", "safetensors")
"""What runs import besides."""
SECONDS = 120.0
"""For all nodes together; each first fetches our packages."""
STORE_SECONDS = 20.0
"""For which a node tries to reach a store that is silent."""
SILENT = f"does not answer within {SECONDS:.0f} s", "see whether it is overloaded, or cut off"
INSTALL = "install what pyproject.toml names on every node, in the driver's versions (constraints.txt)"
ACCESS = (
    "give every node credentials and a way to it, with AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_ENDPOINT_URL "
    "where Ray starts, ~/.aws or a role: the driver's are not handed on"
)
SHARED = "give --store s3://..., or add --shared-store if that path is one folder on every node (NFS, Lustre)"


@dataclass(frozen=True, kw_only=True)
class Check:
    """What a node is held to: the driver's `versions`, and a `probe` in the store that the driver has written."""

    versions: Mapping[str, str]
    store: str
    probe: str
    nodes: Collection[str] = frozenset()
    """IDs of the nodes that were found fit."""

    def guarded(self, train: Callable[[dict[str, Any]], None]) -> Callable[[dict[str, Any]], None]:
        """A Tune function that first looks at its node. A group of workers gets the check with its config, as JSON."""

        def train_on_fit_node(config: dict[str, Any]) -> None:
            self.look()
            group = {"check": asdict(self) | {"nodes": sorted(self.nodes)}} if config.get("workers", 1) > 1 else {}
            train(config | group)

        return train_on_fit_node

    def look(self) -> None:
        """Raises InputError if this process is on a node that has joined since and cannot take part."""
        if ray.get_runtime_context().get_node_id() in self.nodes:
            return
        answer = f".writable-{uuid.uuid4().hex}"
        wrong, remedy = fault(self, answer) or ("", "")
        if wrong:
            raise InputError(f"node {os.uname().nodename}, which joined later, {wrong}", remedy)
        with contextlib.suppress(InputError):  # an empty file is in nobody's way
            Files(self.store, writable=False).remove(answer)


@contextlib.contextmanager
def checked(store: Store, shared: bool) -> Iterator[Check]:
    """The check that all nodes of the cluster at hand have passed, for those that join during the block.

    Raises InputError, which names node and remedy, if one has not.
    """
    check_store(store, shared)
    check = Check(versions=versions(), store=store.url, probe=f".writable-{uuid.uuid4().hex}")
    place = Files(store.url, writable=False)
    place.write(check.probe, b"")
    try:
        yield _passed(check, place)
    finally:
        with contextlib.suppress(InputError):  # a store that is lost by now is known to be
            place.remove(check.probe)


def check_store(store: Store, shared: bool) -> None:
    """Raises InputError for a store in a local path on what has, or may get, several nodes, unless it is said to be
    shared."""
    nodes = sum(node["Alive"] for node in ray.nodes())
    if store.is_local and not shared:
        what = f"store {store.url} is a local path, but the cluster"
        if nodes > 1:
            raise InputError(f"{what} has {nodes} nodes", SHARED)
        if may_grow(os.environ):
            raise InputError(f"{what} gets further nodes with the work", SHARED)


def versions() -> dict[str, str]:
    """Those of Python and of EQUAL here, "" for what is not installed, without a build's suffix such as +cu128."""
    found = {"python": platform.python_version()}
    for package in EQUAL:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[package] = metadata.version(package).partition("+")[0]
    return {name: found.get(name, "") for name in ("python", *EQUAL)}


def fault(check: Check, answer: str) -> tuple[str, str] | None:
    """What keeps this node from taking part, as the end of a sentence, and the remedy. None, and the `answer` written
    to the store, if nothing does."""
    here = versions()
    for name, wanted in check.versions.items():
        if not here[name]:
            return f"has no package {name}", INSTALL
        if here[name] != wanted:
            words = f"has {name} {here[name]}, the driver {wanted}"
            return words, "install the same version on every node (constraints.txt)"
    if missing := [name for name in NEEDED if importlib.util.find_spec(name) is None]:
        return f"has no package {missing[0]}", INSTALL
    before, files.PATIENCE = files.PATIENCE, STORE_SECONDS
    try:
        place = Files(check.store, writable=False)
        if place.read(check.probe) is None:
            if place.is_local:
                return f"sees another folder as {check.store}", SHARED
            return f"sees another {check.store}", ACCESS
        place.write(answer, b"")
    except InputError as error:
        return f"cannot use the store: {error.what}", ACCESS
    finally:
        files.PATIENCE = before
    return None


def _passed(check: Check, place: Files) -> Check:
    """The check with the nodes that passed it: all that can run anything, and the driver's own."""
    own = ray.get_runtime_context().get_node_id()
    nodes = {
        node["NodeID"]: f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']})"
        for node in ray.nodes()
        if node["Alive"] and (node["Resources"].get("CPU") or node["NodeID"] == own)
    }
    answers = {node: f".writable-{uuid.uuid4().hex}" for node in nodes}
    look, tasks = ray.remote(num_cpus=0, max_retries=0)(fault), {}
    try:
        for node in nodes:
            there = NodeAffinitySchedulingStrategy(node, soft=False)
            tasks[node] = look.options(scheduling_strategy=there).remote(check, answers[node])
        done, _ = ray.wait(list(tasks.values()), num_returns=len(tasks), timeout=SECONDS)
        found = {node: _told(task) if task in done else SILENT for node, task in tasks.items()}
        for node in nodes:
            if found[node] is None and place.read(answers[node]) is None:
                found[node] = f"writes to another {check.store}", SHARED if place.is_local else ACCESS
    finally:
        for answer in answers.values():
            place.remove(answer)
    alive = {node["NodeID"] for node in ray.nodes() if node["Alive"]}
    wrong = {node: said for node, said in found.items() if said is not None and node in alive}
    for node, (what, remedy) in wrong.items():
        others = f", and {len(wrong) - 1} more cannot take part" if len(wrong) > 1 else ""
        raise InputError(f"node {nodes[node]} {what}{others}", remedy)
    return replace(check, nodes=frozenset(alive & set(nodes)))


def _told(task: Any) -> tuple[str, str] | None:
    """What a node answered; or why it could not even begin."""
    try:
        return ray.get(task)
    except ray.exceptions.RayError as error:
        missing = re.search(r"No module named '([\w.]+)'", str(error))
        if missing:
            return f"has no package {missing[1]}", INSTALL
        return f"cannot run anything ({one_line(error)[-200:]})", "see that node's logs in the dashboard"
