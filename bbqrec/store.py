"""Content-addressed artefacts on any file system that fsspec reaches: a local or NFS path, s3://bucket/path.

    <url>/<kind>/<key>/<attempt>/...               the files of one attempt, invisible until
    <url>/<kind>/<key>/manifest.json               names the attempt that counts and its checksums: written last
    <url>/<kind>/<key>/progress/<attempt>-<epoch>/ a checkpoint of an unfinished run, invisible until
    <url>/<kind>/<key>/progress/latest.json        lists the newest checkpoints, newest first: written last

Only bytes go in and out. Every path carries its attempt until a manifest names it, so a writer that was thought dead
cannot overwrite its successor's files.
"""

import contextlib
import hashlib
import json
import logging
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bbqrec.errors import InputError
from bbqrec.files import Files, one_line, replace_file, sha256_of

log = logging.getLogger(__name__)

CHECKPOINTS_KEPT = 2
"""The fault that a checkpoint is needed for may have cut the newest short; then the one before it counts."""


class DamagedArtefact(Exception):
    """A stored file is missing or differs from its checksum; the message is its name."""


@dataclass(frozen=True, kw_only=True)
class Progress:
    """A checkpoint of an unfinished run: `epoch` is the one saved with it, `files` its bytes by name."""

    epoch: int
    files: Mapping[str, bytes]


class Store:
    """The artefacts at a path or URL. Raises InputError if it cannot be written (unless only read) or reached.

    Names (kind, key, attempt, file) are single path components; anything else raises ValueError.
    """

    def __init__(self, url: str | Path, writable: bool = True) -> None:
        self._files, self._writable = Files(url, writable), writable
        self.url = self._files.url
        """Absolute, whatever was given."""

    @property
    def is_local(self) -> bool:
        """A path of this machine; other nodes see it only if it is mounted there too."""
        return self._files.is_local

    def has(self, kind: str, key: str) -> bool:
        """Whether an attempt is published. Only `get` and the reads verify its files."""
        return self._manifest(kind, key) is not None

    def get(self, kind: str, key: str, local_dir: str | Path | None = None) -> Path | None:
        """Folder on this machine with the published files, checksums verified; None if nothing is published.

        A damaged artefact is logged by name and un-published, so that it is computed again: None. The files of a
        remote store are copied once to `local_dir`/<kind>/<key>/<attempt> (default: the user's cache); a local
        store returns its own folder: do not write there.
        """
        manifest = self._manifest(kind, key)
        if manifest is None:
            return None
        name = f"{kind}/{key}/{manifest['attempt']}"
        folder = self._files.local_path(name) if self.is_local else Path(local_dir or self._cache()) / name
        try:
            for file, expected in manifest["files"].items():
                if sha256_of(folder / file) != expected["sha256"]:
                    if self.is_local:
                        raise DamagedArtefact(f"{name}/{file}")
                    _cached(folder / file, self._verified(f"{name}/{file}", expected["sha256"]))
        except DamagedArtefact as damage:
            self._unpublish(kind, key, manifest["attempt"], damage)
            return None
        return folder

    def publish(self, kind: str, key: str, folder: str | Path, attempt: str) -> None:
        """Uploads every file under `folder`, then the manifest. What is published already stays: the first wins."""
        _check_names(kind, key, attempt)
        if self.has(kind, key):
            return
        prefix = f"{kind}/{key}/{attempt}"
        files = {}
        try:
            for path in sorted(p for p in Path(folder).rglob("*") if p.is_file()):
                name = path.relative_to(folder).as_posix()
                files[name] = {"sha256": sha256_of(path), "bytes": path.stat().st_size}
                self._files.upload(path, f"{prefix}/{name}")
            published = self._manifest(kind, key)
            if published is None:
                self._files.write(f"{kind}/{key}/manifest.json", _json({"attempt": attempt, "files": files}))
        except InputError:
            with contextlib.suppress(InputError):  # what went wrong first is what the user needs to hear
                self._files.remove(prefix)
            raise
        if published is not None and published["attempt"] != attempt:
            self._files.remove(prefix)

    def keys(self, kind: str) -> list[str]:
        """The published keys of a kind, sorted."""
        _check_names(kind)
        return [key for key in self._files.folders(kind) if self._files.exists(f"{kind}/{key}/manifest.json")]

    def read_bytes(self, kind: str, key: str, name: str) -> bytes:
        """One file of a published artefact. Raises InputError if there is none or it is damaged."""
        manifest = self._manifest(kind, key)
        if manifest is None or name not in manifest["files"]:
            raise InputError(f"store {self.url} has no {name} of {kind} {key}", "run the command that computes it")
        attempt = manifest["attempt"]
        try:
            return self._verified(f"{kind}/{key}/{attempt}/{name}", manifest["files"][name]["sha256"])
        except DamagedArtefact as damage:
            self._unpublish(kind, key, attempt, damage)
            raise InputError(
                f"store {self.url}: {damage} is damaged", "run the command that computes it again"
            ) from damage

    def read_json(self, kind: str, key: str, name: str) -> Any:
        return json.loads(self.read_bytes(kind, key, name))

    def save_progress(self, kind: str, key: str, attempt: str, epoch: int, blob: Mapping[str, bytes]) -> None:
        """Saves a checkpoint. The newest by epoch stay, whichever attempts they come from."""
        _check_names(kind, key, attempt, *blob)
        folder = f"{attempt}-{epoch}"
        for name, data in blob.items():
            self._files.write(f"{kind}/{key}/progress/{folder}/{name}", data)
        files = {name: {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)} for name, data in blob.items()}
        before = self._checkpoints(kind, key)
        # One of the same epoch gives way: it may be the damaged one that this run has just made good.
        others = [entry for entry in before if entry["epoch"] != epoch]
        entries = sorted([{"folder": folder, "epoch": epoch, "files": files}, *others], key=lambda e: -e["epoch"])
        kept = entries[:CHECKPOINTS_KEPT]
        self._files.write(f"{kind}/{key}/progress/latest.json", _json({"checkpoints": kept}))
        for stale in {e["folder"] for e in (*before, *entries)} - {e["folder"] for e in kept}:
            self._files.remove(f"{kind}/{key}/progress/{stale}")

    def load_progress(self, kind: str, key: str) -> Progress | None:
        """The newest checkpoint that is whole, None if there is none. Damaged ones are logged."""
        for entry in self._checkpoints(kind, key):
            folder = f"{kind}/{key}/progress/{entry['folder']}"
            try:
                files = {name: self._verified(f"{folder}/{name}", e["sha256"]) for name, e in entry["files"].items()}
                return Progress(epoch=entry["epoch"], files=files)
            except DamagedArtefact as damage:
                log.warning("store %s: checkpoint %s is damaged, going back to an older one", self.url, damage)
        return None

    def clear_progress(self, kind: str, key: str) -> None:
        """Forgets the checkpoints of a run."""
        _check_names(kind, key)
        self._files.remove(f"{kind}/{key}/progress")

    def write_json(self, path_in_store: str, value: Any) -> None:
        """Writes or replaces one JSON file, atomically."""
        _check_names(*path_in_store.split("/"))
        self._files.write(path_in_store, _json(value))

    def load_json(self, path_in_store: str) -> Any:
        """What `write_json` wrote, None if it never did. Raises InputError if the file is not JSON."""
        _check_names(*path_in_store.split("/"))
        data = self._files.read(path_in_store)
        try:
            return None if data is None else json.loads(data)
        except ValueError as error:
            what = f"{self.url}/{path_in_store} is not JSON ({one_line(error)})"
            raise InputError(what, "remove it and run the command that writes it") from error

    def json_names(self, folder: str) -> list[str]:
        """The JSON files directly under a folder, without their ending, sorted."""
        return sorted(name.removesuffix(".json") for name in self._files.files(folder) if name.endswith(".json"))

    def _cache(self) -> Path:
        root = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
        return root / "bbqrec" / hashlib.sha256(self.url.encode()).hexdigest()[:12]

    def _manifest(self, kind: str, key: str) -> dict[str, Any] | None:
        _check_names(kind, key)
        name = f"{kind}/{key}/manifest.json"
        data = self._files.read(name)
        if data is None:
            return None
        with contextlib.suppress(ValueError):
            manifest = json.loads(data)
            if isinstance(manifest, dict) and {"attempt", "files"} <= manifest.keys():
                return manifest
        log.warning("store %s: damaged artefact %s: %s is unreadable, it will be computed again", self.url, key, name)
        self._discard(name)
        return None

    def _unpublish(self, kind: str, key: str, attempt: str, damage: DamagedArtefact) -> None:
        """Removes the manifest that names this attempt. The files stay: another process may be reading them."""
        log.warning("store %s: damaged artefact %s: %s, it will be computed again", self.url, key, damage)
        manifest = self._manifest(kind, key)
        if manifest is not None and manifest["attempt"] == attempt:
            self._discard(f"{kind}/{key}/manifest.json")

    def _discard(self, name: str) -> None:
        """Removes what is damaged; who only reads leaves it to the next who writes."""
        if self._writable:
            self._files.remove(name)

    def _checkpoints(self, kind: str, key: str) -> list[dict[str, Any]]:
        _check_names(kind, key)
        data = self._files.read(f"{kind}/{key}/progress/latest.json")
        try:
            return [] if data is None else list(json.loads(data)["checkpoints"])
        except (ValueError, KeyError, TypeError):
            log.warning("store %s: damaged %s/%s/progress/latest.json, the run starts again", self.url, kind, key)
            return []

    def _verified(self, name: str, sha256: str) -> bytes:
        data = self._files.read(name)
        if data is None or hashlib.sha256(data).hexdigest() != sha256:
            raise DamagedArtefact(name)
        return data


def _check_names(*names: str) -> None:
    for name in names:
        if not re.fullmatch(r"(?!\.)[\w.+=@-]+", name):
            raise ValueError(f"{name!r} must be one path component of letters, digits and . _ + = @ -")


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=1) + "\n").encode()


def _cached(path: Path, data: bytes) -> None:
    try:
        replace_file(path, data)
    except OSError as error:
        raise InputError(f"local copy {path}: {one_line(error)}", "free some space or set XDG_CACHE_HOME") from error
