"""The rules of the house that a machine can check: what imports what, what is never read, how long a module is."""

import ast
import graphlib
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("bbqrec", "sweeps", "analysis", "benchmarks")
SOURCES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))

LAYERS = (
    "errors native similarity_triton",
    "schema overrides files precision distributed",
    "config store metrics provenance",
    "run run_registry profiles",
    "run_details pruning",
    "run_comparison",
    "losses mutual_information codebook sequence_encoder similarity_mix item_features",
    "attention",
    "datasets",
    "data semantic_ids",
    "quantizer recommender decoding",
    "node_vectors",
    "baselines",
    "examples generation trie_likelihood",
    "evaluation checkpoint",
    "training codebook_upkeep",
    "tasks",
    "quantizer_training letter_training recommender_training",
    "methods",
    "records",
    "artefacts",
    "stages",
    "recommendation",
    "cli_prepare cli_runs",
    "cli",
)
"""bbqrec from the ground up: a module imports from the layers before its own. A package is free within itself."""

TAKE_MORE = {"bbqrec.similarity_triton"}
"""Imports what no dependency brings; who wants it catches the failure."""
OPEN_TO_ANALYSIS = {"bbqrec.errors", "bbqrec.store", "bbqrec.metrics"}
PICKLERS = {"pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"}
DRAWERS = {"utils", "util", "common", "helpers", "helper", "base", "misc"}


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path.read_text() for path in SOURCES}


def imported(source: str) -> set[str]:
    """Every module that a source imports, at its top or inside a function; `from a import b` gives a and a.b."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"relative import of {node.module}"
            names |= {str(node.module)} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def roots(source: str) -> set[str]:
    return {name.split(".")[0] for name in imported(source)}


def layer(module: str) -> int | None:
    """None for a module that LAYERS does not name."""
    names = [*module.split("."), ""]
    return next((height for height, row in enumerate(LAYERS) if names[1] in row.split()), None)


def upward_imports(module: str, source: str) -> set[str]:
    """What a module of bbqrec imports from its own layer or one above it."""
    own = layer(module)
    assert own is not None, f"{module} has no place in LAYERS"
    targets = {name for name in imported(source) if name in MODULES and name != "bbqrec"}
    inside = {name for name in targets if name.split(".")[:2] == module.split(".")[:2]}
    return {name for name in targets - inside if (height := layer(name)) is None or height >= own}


def unpickling(source: str) -> list[str]:
    """What a source could execute a stranger's file with."""
    found = sorted(name for name in imported(source) if PICKLERS & set(name.split(".")))
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        called, keywords = ast.unparse(node.func), {k.arg: ast.unparse(k.value) for k in node.keywords}
        if called.endswith(("read_pickle", "to_pickle", "torch.save")) or called in ("eval", "exec"):
            found.append(called)
        if called.endswith("torch.load") and keywords.get("weights_only") != "True":
            found.append(f"{called} without weights_only=True")
        if keywords.get("allow_pickle", "False") != "False":
            found.append(f"{called}(allow_pickle={keywords['allow_pickle']})")
    return found


@pytest.mark.parametrize("module", [name for name in MODULES if name.startswith("bbqrec.")])
def test_imports_point_downwards(module: str) -> None:
    assert upward_imports(module, MODULES[module]) == set()


def test_no_circle_of_imports() -> None:
    graph = {module: imported(source) & MODULES.keys() - {module} for module, source in MODULES.items()}
    graphlib.TopologicalSorter(graph).prepare()


@pytest.mark.parametrize("module", MODULES)
def test_the_packages_know_what_they_may(module: str) -> None:
    source = MODULES[module]
    package = module.split(".")[0]
    forbidden = {
        "bbqrec": {"ray", "sweeps", "analysis", "benchmarks"},
        "analysis": {"ray", "torch", "sweeps", "benchmarks"},
        "sweeps": {"benchmarks"},
        "benchmarks": {"ray", "sweeps", "analysis"},
    }
    allowed = (
        {"ray", "sweeps"} if module in ("benchmarks.dispatch", "benchmarks.scaling") else set()
    )  # what it measures
    assert roots(source) & forbidden[package] - allowed == set()
    if package == "analysis":
        assert {name for name in imported(source) if name in MODULES and name.startswith("bbqrec.")} <= OPEN_TO_ANALYSIS
    if package == "bbqrec":
        assert "__future__.annotations" not in imported(source), "it disables the shape checks of dataclasses"


@pytest.mark.parametrize("module", MODULES)
def test_a_module_is_one_concept(module: str) -> None:
    source = MODULES[module]
    assert len(source.splitlines()) <= 250
    assert not DRAWERS & set(module.split("."))
    assert ast.get_docstring(ast.parse(source)), "no docstring"


@pytest.mark.parametrize("module", MODULES)
def test_nothing_is_unpickled(module: str) -> None:
    assert unpickling(MODULES[module]) == []


@pytest.mark.parametrize(
    ("imports", "absent"), [("analysis", {"torch", "ray"}), ("bbqrec", {"ray"}), ("bbqrec.cli", {"torch", "ray"})]
)
def test_a_package_loads_without(imports: str, absent: set[str]) -> None:
    """Also by way of what it imports."""
    modules = [m for m in MODULES if m == imports or (m.startswith(f"{imports}.") and m not in TAKE_MORE)]
    code = f"import importlib, sys\nfor m in {modules}: importlib.import_module(m)\n"
    code += f"print(*{absent} & sys.modules.keys())"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert (run.returncode, run.stdout.split()) == (0, []), run.stderr


def test_the_checks_see_what_they_are_for() -> None:
    assert upward_imports("bbqrec.data", "from bbqrec.quantizer import Quantizer") == {"bbqrec.quantizer"}
    assert upward_imports("bbqrec.data", "from bbqrec import stages") == {"bbqrec.stages"}
    assert upward_imports("bbqrec.quantizer", "def f():\n    import bbqrec.recommender") == {"bbqrec.recommender"}
    assert upward_imports("bbqrec.quantizer", "import bbqrec\nfrom bbqrec.errors import InputError") == set()
    assert upward_imports("bbqrec.datasets.tabular", "from bbqrec.datasets.core import core") == set()
    assert roots("def f():\n    from ray.train import report") == {"ray"}
    assert unpickling("import torch\ntorch.load(f)\ntorch.load(f, weights_only=False)") != []
    assert unpickling("import torch\ntorch.load(f, weights_only=True)\nnp.load(f, allow_pickle=False)") == []
    for source in (
        "import pickle",
        "from ray import cloudpickle",
        "np.load(f, allow_pickle=x)",
        "pd.read_pickle(f)",
        "eval(s)",
    ):
        assert unpickling(source) != [], source
