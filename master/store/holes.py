"""Give the disk back what removed images held, in files that other images still need.

Linux can free blocks inside a file (`fallocate` with PUNCH_HOLE: ext4, xfs, btrfs,
tmpfs); the file keeps its size and all others keep their place. Where that is not
supported the space comes back with the last image of the segment. So it does for what
a crash leaves between the commit of a removal and its hole.
"""

from __future__ import annotations

import ctypes
import functools
import os
from collections.abc import Callable, Iterable
from typing import Final

# include/uapi/linux/falloc.h
KEEP_SIZE: Final = 0x01
PUNCH_HOLE: Final = 0x02
# A hole that begins or ends within a block makes the kernel write zeros there.
BLOCK_BYTES: Final = 4096

Range = tuple[int, int, int]  # segment, begin, end


def merged(ranges: Iterable[Range]) -> list[Range]:
    """Neighbours joined, then narrowed to whole blocks; what holds no block is left out."""
    joined: list[Range] = []
    for segment, begin, end in sorted(ranges):
        if joined and joined[-1][0] == segment and begin <= joined[-1][2]:
            joined[-1] = (segment, joined[-1][1], max(end, joined[-1][2]))
        else:
            joined.append((segment, begin, end))
    blocks = [
        (segment, -(-begin // BLOCK_BYTES) * BLOCK_BYTES, end // BLOCK_BYTES * BLOCK_BYTES)
        for segment, begin, end in joined
    ]
    return [hole for hole in blocks if hole[1] < hole[2]]


def punch(fd: int, begin: int, end: int) -> None:
    """Free the blocks of a range.

    Raises:
        OSError: not supported here, or the disk failed.
    """
    call = _fallocate()
    if call is None:
        raise OSError("this platform has no fallocate")
    if call(fd, KEEP_SIZE | PUNCH_HOLE, begin, end - begin) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


@functools.cache
def _fallocate() -> Callable[[int, int, int, int], int] | None:
    try:
        call = ctypes.CDLL(None, use_errno=True).fallocate
    except (OSError, AttributeError):
        return None
    call.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
    call.restype = ctypes.c_int
    return call
