"""What a store can do without: what faults left behind and, if asked, what nothing refers to any more.

Nothing that changed within the grace period is touched: an attempt that is at work writes its checkpoint every epoch,
and its results within minutes. A folder is as old as its youngest file.
"""

import math
import re
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from bbqrec.errors import InputError
from bbqrec.files import Entry, Files
from bbqrec.run_registry import KINDS, Registry, at, named, parsed

DAY = 86400.0
COPIES = "dataset"
"""Copies of data sets for nodes that lack them; published like runs."""
OTHERS = ("study", "curve")
"""Folders of plain JSON files."""
TEMPORARY = re.compile(r"\..*-[0-9a-f]{32}")
"""What a file is called while it is written, and a probe whether the store can be written."""


@dataclass(frozen=True, kw_only=True)
class Leftover:
    """A file or folder that is not needed, by its name in the store; `modified` in seconds since 1970.

    `published` is the manifest of a folder that has one: it goes first, so that nobody finds it without its files.
    """

    name: str
    why: str
    files: int
    bytes: int
    modified: float
    published: str | None = None


def older_than(days: float) -> float:
    """The moment `days` ago, in seconds since 1970. Raises InputError for what is no number of days."""
    if not math.isfinite(days) or days < 0:
        raise InputError(f"--older-than {days:g} is no number of days", "give 0 or more, for instance 7")
    return time.time() - days * DAY


def leftovers(registry: Registry, before: float, unused: bool = False) -> tuple[list[Leftover], list[str]]:
    """What can go of what has not changed since `before`, and remarks on what stays that was asked about."""
    files, remarks = registry.files, list[str]()
    tree = {**registry.tree, **{name: entry for kind in (COPIES, *OTHERS) for name, entry in files.tree(kind).items()}}
    found = [*_temporary(files, tree)]
    found += _of_attempts(files, tree)
    if unused:
        without, remarks = _unused(registry, tree, before)
        found += without
    found = [leftover for leftover in found if leftover.modified < before]
    whole = tuple(f"{leftover.name}/" for leftover in found)
    kept = [leftover for leftover in found if not leftover.name.startswith(whole)]
    return sorted(kept, key=lambda leftover: leftover.name), remarks


def remove(files: Files, leftover: Leftover, before: float) -> bool:
    """Removes it, unless it has changed or come into use since it was found; whether it did."""
    now = files.tree(leftover.name)
    if any(entry.modified >= before for entry in now.values()):
        return False
    parts = leftover.name.split("/")
    if parts[0] in (*KINDS, COPIES) and len(parts) == 3 and not TEMPORARY.fullmatch(parts[-1]):
        said = parsed(files.read(f"{parts[0]}/{parts[1]}/manifest.json"))
        if parts[2] == at(said, "attempt") or (parts[2] == "progress" and said is None):
            return False
    if leftover.published is not None:
        files.remove(leftover.published)
    files.remove(leftover.name)
    return True


def _temporary(files: Files, tree: Mapping[str, Entry]) -> Iterator[Leftover]:
    """Files that a process was killed over, in the store's own folder too."""
    for name, entry in {**files.tree("", depth=1), **tree}.items():
        if TEMPORARY.fullmatch(name.rsplit("/", 1)[-1]):
            yield Leftover(name=name, why="unfinished file", files=1, bytes=entry.bytes, modified=entry.modified)


def _of_attempts(files: Files, tree: Mapping[str, Entry]) -> Iterator[Leftover]:
    """Attempts that no manifest names, checkpoints that nobody resumes from. Where a list is unreadable, all stays."""
    folders: dict[str, dict[str, dict[str, Entry]]] = defaultdict(lambda: defaultdict(dict))
    for name, entry in tree.items():
        kind, key, *rest = name.split("/")
        if kind not in OTHERS and len(rest) > 1:
            part = "/".join(rest[:2]) if rest[0] == "progress" else rest[0]
            folders[f"{kind}/{key}"][part][name] = entry
    lists = [f"{run}/{name}" for run in folders for name in ("manifest.json", "progress/latest.json")]
    said = files.read_all(name for name in lists if name in tree)  # again: nearer to what is there now
    for run, parts in folders.items():
        manifest, latest = f"{run}/manifest.json", f"{run}/progress/latest.json"
        published, listed = at(parsed(said.get(manifest)), "attempt"), at(parsed(said.get(latest)), "checkpoints")
        if manifest in tree and not isinstance(published, str):
            continue
        progress = {part: held for part, held in parts.items() if part.startswith("progress/")}
        for part, held in parts.items():
            if part not in progress and part != published:
                yield _folder(f"{run}/{part}", "attempt that was not published", held)
        if progress and manifest in tree:
            held = {name: entry for entries in progress.values() for name, entry in entries.items()}
            yield _folder(f"{run}/progress", "checkpoints of a finished run", held)
        elif latest not in tree or isinstance(listed, list):
            resumable = {"latest.json", *(at(entry, "folder") for entry in listed or ())}
            for part, held in progress.items():
                if part.partition("/")[2] not in resumable and f"{run}/{part}" not in tree:
                    yield _folder(f"{run}/{part}", "checkpoint that is not listed", held)


def _unused(registry: Registry, tree: Mapping[str, Entry], before: float) -> tuple[list[Leftover], list[str]]:
    """Trials, and quantizers that no study shows and no recommender or trial that stays reads."""
    whole: dict[tuple[str, str], dict[str, Entry]] = defaultdict(dict)
    for name, entry in tree.items():
        kind, key = name.split("/")[:2]
        whole[kind, key][name] = entry
    old = [run for run in registry.runs if run.modified < before]
    trials = {run.key: run for run in old if run.kind == "trial"}
    staying = [run for run in registry.runs if run.kind == "recommender"]
    staying += [run for run in registry.runs if run.kind == "trial" and run.key not in trials]
    silent = [run.key for run in staying if not run.knows_its_quantizer]
    remarks = []
    quantizers = [run for run in old if run.kind == "quantizer" and run.state == "finished" and not run.cells]
    if silent and quantizers:
        remarks.append(f"quantizers stay: it is not known which of them {named(silent)} will read")
        quantizers = []
    read = {run.quantizer_key for run in staying}
    found = []
    for run in [*trials.values(), *(run for run in quantizers if run.key not in read)]:
        folder, manifest = f"{run.kind}/{run.key}", f"{run.kind}/{run.key}/manifest.json"
        why = "trial of a tuning" if run.kind == "trial" else "quantizer that nothing reads"
        published = manifest if manifest in tree else None
        found.append(_folder(folder, why, whole[run.kind, run.key], published))
    return found, remarks


def _folder(name: str, why: str, entries: Mapping[str, Entry], published: str | None = None) -> Leftover:
    return Leftover(
        name=name,
        why=why,
        files=len(entries),
        bytes=sum(entry.bytes for entry in entries.values()),
        modified=max(entry.modified for entry in entries.values()),
        published=published,
    )
