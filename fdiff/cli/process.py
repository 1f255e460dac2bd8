"""What a command that runs for long asks of its own process."""

from __future__ import annotations

import ctypes

# Numbers of glibc's malloc.h.
TRIM_THRESHOLD, MMAP_MAX, ARENA_MAX = -1, -4, -8


def keep_memory() -> bool:
    """Have the C library keep what is freed for the next step, which asks for the same, where it can be told so.

    glibc else gives large buffers back to the system, which fills each page with zeros when it is asked for again.
    Returns whether it was told.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # no glibc
        return False
    return all([mallopt(MMAP_MAX, 0), mallopt(TRIM_THRESHOLD, 2**31 - 1), mallopt(ARENA_MAX, 1)])
