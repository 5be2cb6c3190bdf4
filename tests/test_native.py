"""Memory that is kept and given back; the kernels are tested where they are used."""

import os
import subprocess
import sys

import numpy as np
import pytest

from bbqrec import native, provenance

glibc = pytest.mark.skipif(native.platform.libc_ver()[0] != "glibc", reason="another C library")


@glibc
def test_kept_memory_is_not_fetched_again_and_can_be_given_back():
    """In a process of its own: the setting is the whole process's."""
    program = """
import resource
import numpy as np
from bbqrec import native
from bbqrec.provenance import peak_memory_bytes, restart_peak_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(5):
        [np.ones(2 * 10**6) for _ in range(6)]
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

first = faults()
native.keep_freed_memory()
faults()
kept = faults()
high = peak_memory_bytes()
restart_peak_memory()
print(first, kept, high, peak_memory_bytes())
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=os.environ)
    first, kept, high, after = map(int, done.stdout.split())
    assert kept < first / 10
    assert high - after > 7e7


def test_without_glibc_nothing_happens(monkeypatch):
    monkeypatch.setattr(native.platform, "libc_ver", lambda: ("", ""))
    monkeypatch.setattr(native.ctypes, "CDLL", None)
    native.keep_freed_memory()
    native.give_back_freed_memory()


def test_the_peak_memory_of_one_run_is_not_the_next_one_s():
    before = provenance.peak_memory_bytes()
    large = np.ones(2 * before // 8)
    high = provenance.peak_memory_bytes()
    assert high > 2 * before
    del large
    provenance.restart_peak_memory()
    if not provenance._status():
        pytest.skip("only Linux forgets a peak")
    assert provenance.peak_memory_bytes() < high / 1.5
