"""A peer in a virtual environment and a process of its own: its packages need versions that are not ours."""

import contextlib
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch

from bbqrec.errors import InputError
from benchmarks.measure import Contender, Sample

WORKERS = Path(__file__).with_name("workers")


class Peer:
    """A worker script that answers questions, one JSON line each. A context manager: the process lives inside it.

    The script gets the arrays as an npz file, and answers every question with a JSON object.
    """

    def __init__(self, script: str, requirements: Sequence[str], arrays: Mapping[str, np.ndarray]) -> None:
        self.script, self.requirements, self.arrays = script, tuple(requirements), arrays

    def __enter__(self) -> "Peer":
        python = environment(self.requirements)
        self._folder = tempfile.TemporaryDirectory(prefix="bbqrec-peer-")
        given = Path(self._folder.name, "arrays.npz")
        np.savez(given, **dict(self.arrays))  # type: ignore[arg-type]
        self._process = subprocess.Popen(
            [str(python), str(WORKERS / f"{self.script}.py"), str(given)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": ""},
        )
        return self

    def __exit__(self, *error: object) -> None:
        with contextlib.suppress(BrokenPipeError):
            _pipe(self._process.stdin).close()
        self._process.wait(timeout=60)
        self._folder.cleanup()

    def ask(self, **question: Any) -> dict[str, Any]:
        """The worker's answer. Raises RuntimeError if it ended."""
        with contextlib.suppress(BrokenPipeError):
            _pipe(self._process.stdin).write(json.dumps(question) + "\n")
            _pipe(self._process.stdin).flush()
        answer = _pipe(self._process.stdout).readline()
        if not answer:
            raise RuntimeError(f"worker {self.script} ended with status {self._process.wait()}")
        return json.loads(answer)

    def turn(self, **question: Any) -> Contender:
        """A contender that asks this; the answer has `work` and `seconds`, the worker's own CPU time."""

        def asked() -> Sample:
            answer = self.ask(**question)
            return Sample(work=answer["work"], seconds=answer["seconds"])

        return asked


def environment(requirements: Sequence[str]) -> Path:
    """The interpreter of a virtual environment with these packages and our version of torch, made if it is missing."""
    wanted = (f"torch=={torch.__version__.partition('+')[0]}", *requirements)
    root = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "bbqrec" / "peers"
    home = root / hashlib.sha256(" ".join(wanted).encode()).hexdigest()[:12]
    python, ready = home / "bin" / "python", home / "ready"
    if not ready.exists():
        print(f"installing {' '.join(wanted)} into {home}", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(home)], check=True)
        for packages in (wanted[:1], wanted):  # torch first: what depends on it must not choose another build
            done = subprocess.run([str(python), "-m", "pip", "install", "--quiet", *packages])
            if done.returncode != 0:
                raise InputError(f"{' '.join(packages)} cannot be installed", "see what pip says above")
        ready.touch()
    return python


def _pipe(stream: IO[str] | None) -> IO[str]:
    assert stream is not None
    return stream
