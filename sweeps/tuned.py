"""Tuned configs as data: TUNED/<data set>/<method>.json, written by `sweeps/tuning.py`, read by the studies.

Precedence, the later wins: the method's config, the profile, the tuned config, the user's --set. A file counts only for
the data (by fingerprint) and the profile that it was tuned with. Variants such as bbqrec/no-mim have no file: they take
the full model's, from which they are to differ in one thing.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bbqrec.errors import InputError
from bbqrec.files import one_line, replace_file
from bbqrec.methods import METHODS, has_field
from bbqrec.schema import Dataset

TUNED = Path(__file__).resolve().parent / "tuned"
"""Where studies look."""

NAMED = {"method": str, "dataset": str, "fingerprint": str, "profile": str, "overrides": dict}
"""What a study needs of a file, and its type."""


@dataclass(frozen=True, kw_only=True)
class Tuned:
    """What applies to a cell: overrides by method (its own and its teacher's), and what its note says of them."""

    overrides: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    note: str | None = None


def tuned_for(folder: Path | None, method: str, dataset: Dataset, profile: str) -> Tuned:
    """The tuned configs of a method and its teacher on a data set. `folder` None: none.

    Raises InputError for a file that is damaged or names a field that its method does not have.
    """
    overrides: dict[str, Mapping[str, Any]] = {}
    notes: list[str] = []
    for name in dict.fromkeys(filter(None, (method, METHODS[method].teacher))):
        found = None if folder is None else read_tuned(folder, dataset.name, name)
        if found is None:
            continue
        whose = "" if name == found["method"] == method else f" ({found['method']}'s)"
        if found["fingerprint"] != dataset.fingerprint:
            notes.append(f"tuned config{whose} ignored: it is of other data named {dataset.name}")
        elif found["profile"] != profile:
            notes.append(f"tuned config{whose} ignored: it is of profile {found['profile']}")
        else:
            overrides[name] = found["overrides"]
            notes.append(f"tuned config{whose}")
    return Tuned(overrides=overrides, note="; ".join(notes) or None)


def tuned_file(folder: Path, dataset: str, method: str) -> Path:
    """Where the tuned config of a method is; a variant's is the full model's."""
    return folder / dataset / f"{method.partition('/')[0]}.json"


def read_tuned(folder: Path, dataset: str, method: str) -> dict[str, Any] | None:
    """What a file holds, None if there is none. Raises InputError, which names it, for one that cannot be used."""
    return read_tuned_file(tuned_file(folder, dataset, method), method)


def read_tuned_file(path: Path, method: str | None = None) -> dict[str, Any] | None:
    """The same of one file, by default of the method that it names."""
    remedy = "remove it or tune again: python sweeps/tuning.py"
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise InputError(f"tuned config {path} cannot be read ({one_line(error)})", remedy) from error
    wrong = [name for name, kind in NAMED.items() if not isinstance(found, dict) or type(found.get(name)) is not kind]
    if wrong:
        raise InputError(f"tuned config {path} has no {', '.join(wrong)}", remedy)
    owner = method or found["method"]
    unknown = [name for name in found["overrides"] if owner not in METHODS or not has_field(owner, name)]
    if unknown:
        raise InputError(f"tuned config {path}: {owner} has no field {', '.join(unknown)}", remedy)
    return found


def write_tuned(folder: Path, found: Mapping[str, Any], kind: str = "") -> Path:
    """Writes what was found by tuning. A file that says the same but for when and by which code stays as it is.

    A `kind` such as ".pbt" is that of another file beside the tuned config, which no study reads.
    """
    path = tuned_file(folder, found["dataset"], found["method"] + kind)
    try:
        before = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        before = None
    same = isinstance(before, dict) and {**before, "made": None} == json.loads(json.dumps({**found, "made": None}))
    if not same:
        try:
            replace_file(path, (json.dumps(found, indent=1) + "\n").encode())
        except OSError as error:
            raise InputError(f"cannot write {path} ({one_line(error)})", "give a writable --tuned folder") from error
    return path


def written_to(folder: str) -> str:
    """A --tuned folder as a job's description has it: "" for the default one, wherever it is on this machine."""
    return "" if Path(folder) == TUNED else folder
