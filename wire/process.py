"""What a busy Python process asks of its interpreter and allocator, once, at its start.

Each figure was measured with core and web at their limit on two cores of an AMD EPYC.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import sys

# mallopt(3): memory up to this stays with the process when it is freed.
M_TRIM_THRESHOLD = -1
M_MMAP_THRESHOLD = -3
TRIM_BYTES = 32 * 2**20
"""Images come and go: giving their pages back costs a page fault (1 us) per 4 KiB each time."""
MMAP_BYTES = 8 * 2**20
"""Larger buffers are mapped singly and given back; a part of a submission is smaller."""
GC_YOUNG_OBJECTS = 20_000
"""Objects between two collections of the youngest generation; Python's 700 took 3 to 5 %."""

SWITCH_INTERVAL_S = 0.0005
"""For so long a thread of Python keeps the others from running; the default is 5 ms."""


def take_short_turns() -> None:
    """Let threads that wait for bytes have their turn soon. Call once, before they start.

    With the default, a worker's thread that receives and the core's event loop wait up to 5 ms
    for each thread that runs Python beside them.
    """
    sys.setswitchinterval(SWITCH_INTERVAL_S)


def tune() -> None:
    """Keep freed memory at hand and collect garbage less often. Call when all is imported."""
    with contextlib.suppress(OSError, AttributeError):  # another C library has no mallopt
        libc = ctypes.CDLL(None)
        libc.mallopt(M_MMAP_THRESHOLD, MMAP_BYTES)
        libc.mallopt(M_TRIM_THRESHOLD, TRIM_BYTES)
    gc.collect()
    gc.freeze()
    gc.set_threshold(GC_YOUNG_OBJECTS, 20, 20)
