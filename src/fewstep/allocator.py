"""The C library's memory allocator, told to keep what it will be asked for again."""

import ctypes
import sys

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3  # of mallopt, in glibc's malloc.h


def keep_freed_memory() -> None:
    """Keep freed memory in the process, up to 2 GB of it, instead of returning it to the system.

    glibc gives every large tensor fresh pages and takes them back when it dies, so that a meta-step, which makes
    and frees the same tensors over and over, spends much of its time in page faults. Nothing happens under other C
    libraries.
    """
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        for option, value in ((_MMAP_THRESHOLD, 1 << 30), (_TRIM_THRESHOLD, 2**31 - 1), (_TOP_PAD, 64 << 20)):
            mallopt(ctypes.c_int(option), ctypes.c_int(value))
