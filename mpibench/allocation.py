"""Large arrays come from memory that the process keeps.

What is handed over is frozen, so methods make new vectors all the time. glibc would give one of a megabyte back to the
system when it is freed, and the next one would be mapped anew and cleared, page by page, which costs more than the
arithmetic on it.
"""

import ctypes
import sys

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # mallopt(3)
LARGEST = 32 << 20  # bytes; glibc takes no more


def keep_memory():
    """Keep what arrays of up to 32 MiB leave. False where the C library is not glibc, which nothing depends on."""
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return bool(mallopt(MMAP_THRESHOLD, LARGEST)) and bool(mallopt(TRIM_THRESHOLD, 1 << 30))
