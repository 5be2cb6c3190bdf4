"""What a store holds: every run, finished or not, with its row, its files and the studies that show it.

Only reads, and reads past damage: a run whose files cannot be right is listed as damaged.
"""

import hashlib
import json
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from bbqrec.errors import InputError, suggestion
from bbqrec.files import Entry, Files

KINDS = ("recommender", "quantizer", "trial")
"""What is looked for, in this order: a trial may have the key of a run."""
State = Literal["finished", "in progress", "damaged", "incomplete"]
NDCG = "ndcg@10"


@dataclass(frozen=True, kw_only=True)
class StudyCell:
    """A cell of a study that rests on a run: as its own `recommender`, `quantizer` or that one's `teacher`."""

    study: str
    role: str
    method: str
    dataset: str
    seed: int
    setting: str | None
    run_key: str
    quantizer_key: str | None


@dataclass(frozen=True, kw_only=True)
class StoredRun:
    """One stage in the store. `row` is {} unless it is finished; `epoch` that of an unfinished one's checkpoint.

    `files` are those of the attempt that counts, with their names in it. "incomplete": neither published nor resumable.
    """

    kind: str
    key: str
    state: State
    row: Mapping[str, Any]
    attempt: str | None
    files: Mapping[str, Entry]
    damage: str | None
    epoch: int | None
    cells: tuple[StudyCell, ...]
    modified: float
    """When any of its files changed last, in seconds since 1970."""

    @property
    def quantizer_key(self) -> str | None:
        """Of its quantizer, as far as its row or a study says; None for quantizers and models over items."""
        named = [cell.quantizer_key for cell in self.cells if cell.role == "recommender"]
        key = at(self.row, "quantizer_key") if self.row else next(iter(named), None)
        return key if self.kind != "quantizer" and isinstance(key, str) else None

    @property
    def knows_its_quantizer(self) -> bool:
        return bool(self.row) or any(cell.role == "recommender" for cell in self.cells)


class Registry:
    """The runs of the store at a path or URL. Raises InputError if it does not exist or cannot be read."""

    def __init__(self, url: str) -> None:
        if "://" not in url and not Path(url).expanduser().is_dir():
            raise InputError(f"store {url} does not exist", "give the --store that the runs were made with")
        self.files = Files(url, writable=False)
        self.tree = {name: entry for kind in KINDS for name, entry in self.files.tree(kind).items()}
        self.remarks: list[str] = []
        """What could not be read beside the runs."""
        cells = self._cells()
        grouped: dict[tuple[str, str], dict[str, Entry]] = defaultdict(dict)
        for name, entry in self.tree.items():
            kind, key, *rest = name.split("/")
            if rest:
                grouped[kind, key]["/".join(rest)] = entry
        self._manifests = self._read(f"{kind}/{key}/manifest.json" for kind, key in grouped)
        attempts = {run: _attempt(self._manifests.get(f"{run[0]}/{run[1]}/manifest.json")) for run in grouped}
        rows = [f"{kind}/{key}/{a}/row.json" for (kind, key), (a, _) in attempts.items() if a]
        latest = [f"{k}/{key}/progress/latest.json" for (k, key), g in grouped.items() if "progress/latest.json" in g]
        self._contents = self.files.read_all([*rows, *latest])
        self.runs = [self._run(*run, grouped[run], *attempts[run], tuple(cells[run])) for run in sorted(grouped)]
        self._readers: dict[str | None, list[StoredRun]] = defaultdict(list)
        for stored in self.runs:
            self._readers[stored.quantizer_key].append(stored)

    def find(self, prefix: str, kind: str | None = None) -> StoredRun:
        """The run whose key is, or alone begins with, `prefix`; of a run and a trial of one key, the run.

        Raises InputError for none or several.
        """
        found = [run for run in self.runs if run.key.startswith(prefix) and kind in (None, run.kind)]
        keys = sorted({run.key for run in found if run.key == prefix} or {run.key for run in found})
        if len(keys) > 1:
            raise InputError(f"{prefix!r} begins several keys", f"give more of one of {named(keys, 10)}")
        if not keys or not prefix:
            known = sorted({run.key for run in self.runs})
            remedy = suggestion(prefix, known[:20]) if known else "it holds no runs"
            raise InputError(f"store {self.files.url} has no run {prefix!r}", remedy)
        return min((run for run in found if run.key == keys[0]), key=lambda run: KINDS.index(run.kind))

    def readers(self, quantizer_key: str) -> list[StoredRun]:
        """The recommenders and trials that read a quantizer."""
        return self._readers[quantizer_key]

    def methods(self, run: StoredRun) -> list[str]:
        """The methods that a run is in the studies that show it, else the kind of its config."""
        own = [cell.method for cell in run.cells if cell.role == run.kind]
        if not own and run.kind == "quantizer":
            own = [c.method for r in self.readers(run.key) for c in r.cells if c.role == "recommender"]
        kind = at(run.row, "config", "kinds", "quantizer" if run.kind == "quantizer" else "recommender")
        return list(dict.fromkeys(own)) or ([kind] if isinstance(kind, str) else [])

    def data(self, run: StoredRun) -> tuple[str | None, int | None]:
        """Name of the data set and seed of a run, from its row, a study or, of a quantizer, from who reads it."""
        rows = [run.row, *(reader.row for reader in self.readers(run.key) if run.kind == "quantizer")]
        found = [(at(row, "dataset"), at(row, "seed")) for row in rows]
        found += [(cell.dataset, cell.seed) for cell in run.cells]
        return next(((d, s) for d, s in found if isinstance(d, str) and isinstance(s, int)), (None, None))

    def json_file(self, run: StoredRun, name: str) -> Any:
        """A JSON file of a finished run; None if it is not there or damaged."""
        return parsed(self.bytes_of(run, name))

    def bytes_of(self, run: StoredRun, name: str) -> bytes | None:
        """A file of a finished run; None if it is not there or differs from its checksum."""
        expected = at(parsed(self._manifests.get(f"{run.kind}/{run.key}/manifest.json")), "files", name, "sha256")
        data = self.files.read(f"{run.kind}/{run.key}/{run.attempt}/{name}") if isinstance(expected, str) else None
        return data if data is not None and hashlib.sha256(data).hexdigest() == expected else None

    def _run(
        self,
        kind: str,
        key: str,
        files: Mapping[str, Entry],
        attempt: str | None,
        expected: Mapping[str, Any],
        cells: tuple[StudyCell, ...],
    ) -> StoredRun:
        held = {n.removeprefix(f"{attempt}/"): e for n, e in files.items() if attempt and n.startswith(f"{attempt}/")}
        row: Mapping[str, Any] = {}
        damage, epoch = None, None
        state: State = "incomplete"
        if attempt:
            row, damage = self._row(f"{kind}/{key}/{attempt}/row.json", held, expected)
            state = "damaged" if damage else "finished"
        elif "manifest.json" in files:
            state, damage = "damaged", "manifest.json is unreadable"
        elif "progress/latest.json" in files:
            state = "in progress"
            saved = at(parsed(self._contents.get(f"{kind}/{key}/progress/latest.json")), "checkpoints")
            epoch = at(saved[0], "epoch") if isinstance(saved, list) and saved else None
        return StoredRun(
            kind=kind,
            key=key,
            state=state,
            row=row,
            attempt=attempt,
            files=held,
            damage=damage,
            epoch=epoch if isinstance(epoch, int) else None,
            cells=cells,
            modified=max(entry.modified for entry in files.values()),
        )

    def _row(self, name: str, held: Mapping[str, Entry], expected: Mapping[str, Any]) -> tuple[Any, str | None]:
        """The row of a published run, and what is wrong with its files, as far as names and sizes tell."""
        for file, about in expected.items():
            if file not in held:
                return {}, f"{file} is missing"
            if held[file].bytes != about["bytes"]:
                return {}, f"{file} has {held[file].bytes} bytes instead of {about['bytes']}"
        data = self._contents.get(name)
        if data is None or hashlib.sha256(data).hexdigest() != at(expected, "row.json", "sha256"):
            return {}, "row.json is missing or differs from its checksum"
        row = parsed(data)
        return (row, None) if isinstance(row, dict) and row else ({}, "row.json is not a JSON object")

    def _read(self, names: Any) -> dict[str, bytes]:
        return self.files.read_all([name for name in names if name in self.tree])

    def _cells(self) -> dict[tuple[str, str], list[StudyCell]]:
        """The cells of all studies by the runs that they rest on."""
        contents = self.files.read_all(f"study/{name}" for name in self.files.files("study") if name.endswith(".json"))
        studies = {}
        for name, data in contents.items():
            described = parsed(data)
            if not isinstance(at(described, "cells"), list):
                self.remarks.append(f"{name} is no study file: not read")
                continue
            studies[str(described.get("key") or Path(name).stem)] = described  # the latest one is there twice
        found: dict[tuple[str, str], list[StudyCell]] = defaultdict(list)
        for study, described in studies.items():
            last = "quantizer" if described.get("stage") == "quantizer" else "recommender"
            for cell in described["cells"]:
                about = {name: at(cell, name) for name in ("method", "dataset", "seed", "setting", "run_key")}
                about |= {"study": study, "quantizer_key": at(cell, "quantizer_key")}
                keys = {"quantizer": about["quantizer_key"], last: about["run_key"], "teacher": at(cell, "teacher_key")}
                for role, key in keys.items():
                    if isinstance(key, str) and isinstance(about["method"], str):
                        kind = "recommender" if role == "teacher" else role
                        found[kind, key].append(StudyCell(role=role, **about))
        return found


def at(value: Any, *path: str) -> Any:
    """What lies at a path of nested objects; None where there is none, or no object."""
    for name in path:
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


def parsed(data: bytes | None) -> Any:
    """JSON, None if it is none."""
    try:
        return None if data is None else json.loads(data)
    except ValueError:
        return None


def flat(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested objects as one, with dotted names; lists stay."""
    found: dict[str, Any] = {}
    for name, item in value.items():
        found |= flat(item, f"{prefix}{name}.") if isinstance(item, Mapping) else {f"{prefix}{name}": item}
    return found


def _attempt(manifest: bytes | None) -> tuple[str | None, Mapping[str, Any]]:
    """The attempt that a manifest names, and the files that it says it has; (None, {}) if it is unreadable."""
    said = parsed(manifest)
    attempt, files = at(said, "attempt"), at(said, "files")
    whole = isinstance(attempt, str) and re.fullmatch(r"(?!\.)[\w.+=@-]+", attempt) and isinstance(files, Mapping)
    if not whole or not all(isinstance(at(about, "bytes"), int) for about in files.values()):
        return None, {}
    return attempt, files


def named(keys: Sequence[str], most: int = 3) -> str:
    """Some of them in words."""
    return ", ".join(keys[:most]) + (f" and {len(keys) - most} more" if len(keys) > most else "")
