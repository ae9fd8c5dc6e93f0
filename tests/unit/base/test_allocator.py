"""In a process of its own: the switch holds for all that a process does afterwards."""

import platform
import subprocess
import sys

import pytest

SCRIPT = """
import resource, sys
from contentv.base.allocator import keep_freed_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        blocks = [bytearray(b"1" * (16 << 20)) for _ in range(3)]
        del blocks
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

kept = keep_freed_memory() if sys.argv[1] == "keep" else None
print(kept, faults())
"""


def faults(*, keep: bool) -> tuple[str, int]:
    command = [sys.executable, "-c", SCRIPT, "keep" if keep else "leave"]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    kept, number = result.stdout.split()
    return kept, int(number)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the switch is glibc's")
def test_freed_memory_is_fetched_once() -> None:
    """20 times three blocks of 4096 pages: fetched anew each time, or once for all."""
    kept, with_switch = faults(keep=True)
    assert kept == "True"
    assert 10 * with_switch < faults(keep=False)[1]
