"""The study files of a store: `study/<name>-<digest>.json` for every study, `study/<name>.json` for the latest one."""

from collections.abc import Mapping
from typing import Any

from bbqrec.errors import InputError
from bbqrec.store import Store

CELL = ("method", "label", "dataset", "seed", "run_key", "status")
"""What the study file must say of a cell."""
NAMED = (*CELL, "quantizer_key")
"""What it says of a cell; models over items have no quantizer."""
AGAIN = "run the study again, which writes it anew"


def read_study(store: Store, study: str) -> dict[str, Any]:
    """The study file of that name. Raises InputError, which lists what there is, if there is none."""
    try:
        described = store.load_json(f"study/{study}.json")
    except ValueError as error:  # not a name that a store could hold
        raise InputError(f"unknown study {study!r}", "give a name such as ablations") from error
    if described is None:
        there = [_summary(name, store.load_json(f"study/{name}.json")) for name in store.json_names("study")]
        remedy = f"use one of {'; '.join(there)}" if there else f"run it first: python sweeps/{study}.py --store URL"
        raise InputError(f"store {store.url} has no study {study!r}", remedy)
    return _checked(described, f"{store.url}/study/{study}.json") | {"name": described.get("name") or study}


def _checked(described: Any, where: str) -> dict[str, Any]:
    """A study file whose cells have all their fields. Raises InputError for anything else."""
    if not isinstance(described, dict) or not isinstance(described.get("cells"), list):
        raise InputError(f"{where} lists no cells", AGAIN)
    if not isinstance(described.get("overrides"), dict | None):
        raise InputError(f"{where} has overrides {described['overrides']!r}", AGAIN)
    for cell in described["cells"]:
        wrong = [
            f for f in CELL if not isinstance(cell, dict) or not isinstance(cell.get(f), int if f == "seed" else str)
        ]
        if not wrong and not isinstance(cell.get("setting"), str | None):
            raise InputError(f"{where} has a cell with setting {cell['setting']!r}", AGAIN)
        if wrong:
            raise InputError(f"{where} has a cell without {', '.join(wrong)}", AGAIN)
    return described


def _summary(name: str, described: Any) -> str:
    """A study in a few words; its name alone if it is no study file."""
    cells = described.get("cells") if isinstance(described, Mapping) else None
    if not isinstance(cells, list) or not all(isinstance(cell, Mapping) for cell in cells):
        return name
    datasets, methods, seeds = (list(dict.fromkeys(c.get(f) for c in cells)) for f in ("dataset", "method", "seed"))
    about = f"{', '.join(map(str, datasets))}: {len(methods)} variants, seeds {', '.join(map(str, seeds))}"
    return f"{name} ({about}, profile {described.get('profile')}, {described.get('created')})"
