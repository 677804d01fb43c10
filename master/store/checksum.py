"""CRC-32 of an image, by the fastest library that is here; all give the same number.

zlib-ng takes 4 us for 100 kB with the CPU's carry-less multiplication, zlib 40
(measured on an AMD EPYC): of 250 us that a job may cost the core.
"""

from __future__ import annotations

import zlib

try:
    from zlib_ng.zlib_ng import crc32
except ImportError:  # pinned in setup.cfg; an environment from before it still works
    crc32 = zlib.crc32

__all__ = ["crc32"]
