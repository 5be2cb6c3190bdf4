"""Files under one URL on any file system that fsspec reaches; every failure is one InputError."""

import errno
import hashlib
import logging
import os
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem

from bbqrec.errors import InputError

MODIFIED = ("mtime", "LastModified", "updated", "last_modified")
"""What file systems call the time of a file's last change."""


@dataclass(frozen=True)
class Entry:
    """A file's size in bytes and the time of its last change, in seconds since 1970."""

    bytes: int
    modified: float


log = logging.getLogger(__name__)
T = TypeVar("T")

PATIENCE = 90.0
"""Seconds for which a remote store that is out of reach is tried again, beyond what its client tries by itself."""
LOCAL_PATIENCE = 10.0
"""Seconds for which two processes may get in each other's way in a local store."""
LONGEST_PAUSE = 8.0
"""Seconds between two tries of a remote store, at most."""
NO_ACCESS = "give this machine credentials for it: a role, ~/.aws, or AWS_ACCESS_KEY_ID and what goes with it"
PASSING = {"ConnectionError", "HTTPClientError", "ClientConnectionError", "ClientPayloadError", "TimeoutError"}
"""Types of errors after which a remote store may answer again. By name: who raises them need not be installed."""


class Files:
    """Files by name under `url`. If they are to be written, it is created and tried: InputError if that fails.

    `url` is absolute afterwards: a relative path depends on the working directory, which workers change. What fails
    because a remote store cannot be reached or is overloaded is tried again for PATIENCE seconds; what another process
    got in the way of, for LOCAL_PATIENCE.
    """

    def __init__(self, url: str | Path, writable: bool = True) -> None:
        self._given = str(url)
        try:
            # Listings are never cached: other processes write while this one looks.
            self._system, root = url_to_fs(str(url), use_listings_cache=False)
        except ImportError as error:
            remedy = "install the package it names: bbqrec[s3] for s3://, bbqrec[gcs] for gs://"
            raise InputError(f"store {url}: {one_line(error)}", remedy) from error
        except ValueError as error:
            remedy = "use a path or a URL such as s3://bucket/path"
            raise InputError(f"store {url}: {one_line(error)}", remedy) from error
        self._root = root.rstrip("/")
        self.is_local = isinstance(self._system, LocalFileSystem)
        self.url = self._root if self.is_local else self._system.unstrip_protocol(self._root)
        if self.is_local and Path(self._root).is_file():
            raise InputError(f"store {url} is a file", "give a folder")
        if writable:
            probe = f".writable-{uuid.uuid4().hex}"
            self.write(probe, b"")
            self.remove(probe)

    def write(self, name: str, data: bytes) -> None:
        """Atomically: whoever reads sees the old bytes or the new ones."""
        path = self._path(name)
        if self.is_local:
            self._tried(lambda: replace_file(Path(path), data))
        else:
            self._tried(lambda: self._system.pipe_file(path, data))

    def upload(self, source: Path, name: str) -> None:
        """Copies a file of this machine; not atomic."""
        path = self._path(name)

        def copy() -> None:
            if self.is_local:  # object stores have no folders, and s3fs would create a misspelt bucket
                Path(path).parent.mkdir(parents=True, exist_ok=True)
            self._system.put_file(str(source), path)

        self._tried(copy)

    def read(self, name: str) -> bytes | None:
        """The bytes of a file, None if there is none of this name."""

        def read() -> bytes | None:
            try:
                return self._system.cat_file(self._path(name))
            except FileNotFoundError:
                return None

        return self._tried(read)

    def read_all(self, names: Iterable[str]) -> dict[str, bytes]:
        """The bytes of many files, at once where that is faster; those that are not there are left out."""
        if self.is_local:
            found = {name: self.read(name) for name in names}
            return {name: data for name, data in found.items() if data is not None}
        paths = {self._path(name): name for name in names}

        def read() -> dict[str, bytes]:
            got = self._system.cat(list(paths), on_error="return") if paths else {}
            for data in got.values():
                if isinstance(data, Exception) and not isinstance(data, FileNotFoundError):
                    raise data
            return {paths[path]: data for path, data in got.items() if isinstance(data, bytes)}

        return self._tried(read)

    def exists(self, name: str) -> bool:
        return self._tried(lambda: bool(self._system.exists(self._path(name))))

    def folders(self, name: str) -> list[str]:
        """Names of the folders directly under a folder, sorted."""
        return self._entries(name, "directory")

    def files(self, name: str) -> list[str]:
        """Names of the files directly under a folder, sorted."""
        return self._entries(name, "file")

    def tree(self, name: str, depth: int | None = None) -> dict[str, Entry]:
        """Every file below a folder (or the file itself), hidden ones too, by its name from the root.

        `depth` 1 leaves out those in folders of it. {} if there is no such folder.
        """

        def tree() -> dict[str, Entry]:
            try:
                found = self._system.find(self._path(name), maxdepth=depth, detail=True)
                infos = {path: info or self._system.info(path) for path, info in found.items()}
            except FileNotFoundError:
                return {}
            start = len(self._root) + 1
            return {path[start:]: Entry(info.get("size") or 0, _modified(info)) for path, info in infos.items()}

        return self._tried(tree)

    def _entries(self, name: str, kind: str) -> list[str]:
        def entries() -> list[str]:
            try:
                found = self._system.ls(self._path(name), detail=True)
            except FileNotFoundError:
                return []
            return sorted(e["name"].rstrip("/").rsplit("/", 1)[-1] for e in found if e["type"] == kind)

        return self._tried(entries)

    def remove(self, name: str) -> None:
        """Removes a file or a folder with all it holds, if it is there."""
        path = self._path(name)

        def remove() -> None:
            try:
                self._system.rm(path, recursive=True)
            except FileNotFoundError:
                if self.is_local and os.path.lexists(path):
                    raise  # another process removes it, too, and was quicker with one of the files

        self._tried(remove)

    def local_path(self, name: str) -> Path:
        """Where a file of a local store lies."""
        assert self.is_local, self.url
        return Path(self._path(name))

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"

    def _tried(self, operation: Callable[[], T]) -> T:
        """The operation's result. It must be one that can be done twice.
        Clients of remote stores raise types of their own: whatever a file system raises is bad news from outside.
        """
        patience, pause, longest = (LOCAL_PATIENCE, 0.05, 0.05) if self.is_local else (PATIENCE, 1.0, LONGEST_PAUSE)
        deadline = time.monotonic() + patience
        while True:
            try:
                return operation()
            except Exception as error:
                if not (_in_the_way if self.is_local else _out_of_reach)(error) or time.monotonic() + pause > deadline:
                    remedy = "check that it exists and can be written"
                    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
                        remedy = "free some space or choose another place"
                    elif not self.is_local and (isinstance(error, PermissionError) or "credentials" in str(error)):
                        remedy = NO_ACCESS
                    raise InputError(f"store {self._given}: {one_line(error)}", remedy) from error
                if not self.is_local:
                    log.warning("store %s: %s: trying again in %.0f s", self._given, one_line(error), pause)
                time.sleep(pause)
                pause = min(2 * pause, longest)


def _in_the_way(error: Exception) -> bool:
    """Another process removed the folder that this one writes to, or made or wrote to the one that this one removes."""
    return isinstance(error, (FileNotFoundError, IsADirectoryError)) or (
        isinstance(error, OSError) and error.errno in (errno.ENOTEMPTY, errno.ESTALE)
    )


def _out_of_reach(error: Exception) -> bool:
    """No connection, a connection cut, or a server that is overloaded (to s3fs, 503 is EBUSY and 500 EREMOTEIO)."""
    return any(kind.__name__ in PASSING for kind in type(error).__mro__) or (
        isinstance(error, OSError) and error.errno in (errno.EBUSY, getattr(errno, "EREMOTEIO", errno.EIO))
    )


def replace_file(path: Path, data: bytes) -> None:
    """Writes a local file through a sibling, so that it is never seen half-written, not even after a power cut."""
    path.parent.mkdir(parents=True, exist_ok=True)
    sibling = path.with_name(f".{path.name}-{uuid.uuid4().hex}")
    try:
        with sibling.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        sibling.replace(path)
    finally:
        sibling.unlink(missing_ok=True)


def _modified(info: Mapping[str, Any]) -> float:
    """What is not known has just been changed: so nobody takes it for a leftover."""
    value = next((info[name] for name in MODIFIED if info.get(name) is not None), time.time())
    return value.timestamp() if isinstance(value, datetime) else float(value)


def one_line(error: BaseException) -> str:
    """An exception's text without line breaks; its type if it has none."""
    return " ".join(str(error).split()) or type(error).__name__


def sha256_of(path: Path) -> str | None:
    """Hex digest of a local file, None if there is no such file."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise InputError(f"file {path}: {one_line(error)}", "check that it can be read") from error
