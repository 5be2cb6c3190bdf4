"""What only C does: kernels compiled on first use with the machine's own compiler, and how freed memory is kept.

All of it is optional: without it everything runs, more slowly.
"""

import ctypes
import hashlib
import logging
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

log = logging.getLogger(__name__)

FLAGS = ("-std=c11", "-O3", "-march=native", "-shared", "-fPIC")
SUMS = ("-fassociative-math", "-fno-signed-zeros", "-fno-trapping-math", "-fno-math-errno")
"""Sums may be vectorised. Not -ffast-math: linking it makes the whole process round small numbers to zero."""
OPENMP = (("-fopenmp",), ())
"""Tried in this order: some compilers come without it."""


@cache
def kernel(name: str) -> ctypes.CDLL | None:
    """The library of `<name>.c` beside this file; None without a C compiler, or with BBQREC_NATIVE=0."""
    if os.environ.get("BBQREC_NATIVE") == "0":
        return None
    compiler = shlex.split(os.environ.get("CC") or "cc")
    if shutil.which(compiler[0]) is None:
        if "CC" in os.environ:
            log.warning("CC=%s is not found, slower paths are used", os.environ["CC"])
        return None
    source = Path(__file__).with_name(f"{name}.c")
    try:
        library = _library(source, compiler)
        try:
            return ctypes.CDLL(str(library))
        except OSError:  # cut off while it was written, or another machine's
            library.unlink()
            return ctypes.CDLL(str(_library(source, compiler)))
    except (OSError, RuntimeError, ValueError, subprocess.SubprocessError) as error:
        said = getattr(error, "stderr", None) or str(error)
        said = said.decode(errors="replace") if isinstance(said, bytes) else said
        log.warning("%s could not be compiled, the slower path is used: %s", source.name, " ".join(said.split())[:300])
        return None


def _library(source: Path, compiler: list[str]) -> Path:
    """The compiled file, made if it is missing: its name holds all that it depends on."""
    root = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "bbqrec" / "kernels"
    about = (source.read_text(), compiler, FLAGS, SUMS, OPENMP, platform.machine(), platform.libc_ver(), _processor())
    library = root / f"{source.stem}-{hashlib.sha256(repr(about).encode()).hexdigest()[:16]}.so"
    if not library.exists():
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=root) as folder:
            made = Path(folder, library.name)
            for threads in OPENMP:
                command = [*compiler, *FLAGS, *SUMS, *threads, str(source), "-o", str(made)]
                done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=120)
                if done.returncode == 0:
                    break
            done.check_returncode()
            made.replace(library)  # whoever comes at the same time makes the same file
    return library


def _processor() -> str:
    """What -march=native looks at: a cache on a shared file system serves machines of several kinds."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next((line for line in lines if line.startswith(("flags", "Features"))), "")


M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of mallopt(3)
KEPT, LARGE = 2**28, 2**25
"""Bytes: as much is kept; what is larger is fetched and given back by itself (glibc takes no higher limit)."""


def keep_freed_memory() -> None:
    """Has glibc keep what is freed instead of giving it back: a step of training asks for the same sizes again, and
    fetching fresh pages takes about a tenth of its time. A setting of the whole process."""
    for option, value in ((M_MMAP_THRESHOLD, LARGE), (M_TRIM_THRESHOLD, KEPT)):
        _glibc("mallopt", option, value)


def give_back_freed_memory() -> None:
    """Gives back what glibc keeps."""
    _glibc("malloc_trim", 0)


def _glibc(name: str, *arguments: int) -> None:
    """Nothing happens with another C library."""
    if platform.libc_ver()[0] == "glibc":
        getattr(ctypes.CDLL(None), name)(*arguments)
