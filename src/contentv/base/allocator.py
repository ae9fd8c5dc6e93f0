"""The C library's memory: whether the process keeps what it has freed."""

import ctypes

# glibc's <malloc.h>, and the largest threshold it takes.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_NEVER, _LARGEST = -1, 32 << 20


def keep_freed_memory() -> bool:
    """Lets this process keep the memory it frees, for all that it does from now on.

    Otherwise large tensors on a CPU are given back to the system and fetched anew, zeroed page by
    page, in every layer. The process then stays at its highest size. False where the C library has
    no such switch (it is glibc's).
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return bool(mallopt(_MMAP_THRESHOLD, _LARGEST)) and bool(mallopt(_TRIM_THRESHOLD, _NEVER))
