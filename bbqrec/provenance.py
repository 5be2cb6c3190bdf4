"""Where a number came from: versions, commit, machine, time."""

import contextlib
import os
import platform
import resource
import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

import bbqrec
from bbqrec.native import give_back_freed_memory


def provenance(device: torch.device, given: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Versions and machine, as plain JSON values; `given` (commit, times, what the driver of a study knows) wins."""
    found = {
        "version": bbqrec.__version__,
        "host": platform.node(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else f"{os.cpu_count()} CPU cores",
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "ray": _installed("ray"),
        "finished": now(),
    }
    return found | dict(given or {})


def now() -> str:
    """UTC, ISO 8601, seconds."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def source_state() -> dict[str, Any]:
    """Commit of the checkout that this package is imported from, and whether it has changes; None without one."""
    folder = Path(bbqrec.__file__).resolve().parent.parent
    if not (folder / ".git").exists():
        return {"commit": None, "dirty": None}
    commit = _git(folder, "rev-parse", "HEAD")
    changed = _git(folder, "status", "--porcelain", "--untracked-files=no")
    return {"commit": commit, "dirty": None if changed is None else bool(changed)}


def peak_memory_bytes() -> int:
    """Largest resident size of this process since `restart_peak_memory`, or so far."""
    for line in _status():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def peak_gpu_memory_bytes(device: torch.device) -> int:
    """Largest size of this process's tensors on a GPU since `restart_peak_memory`, or so far; 0 of a CPU."""
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else 0


def restart_peak_memory(device: torch.device | None = None) -> None:
    """Forgets the peak so far, which may be another run's in this process, where Linux lets us; also a GPU's."""
    give_back_freed_memory()
    if device is not None and device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def _status() -> list[str]:
    try:
        return Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return []


def _git(folder: Path, *words: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *words], capture_output=True, text=True, timeout=10, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _installed(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
