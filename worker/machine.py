"""This machine's processor, as far as it decides which engine and precision are fast."""

from __future__ import annotations

import functools
import os
import platform
from importlib import metadata
from pathlib import Path

_BF16_FLAGS = frozenset({"avx512_bf16", "amx_bf16"})
"""x86 flags of processors that multiply bfloat16 natively; others convert, and gain nothing."""
_CPUINFO = Path("/proc/cpuinfo")


def cores() -> int:
    """Processors that this process may run on."""
    return len(os.sched_getaffinity(0))


@functools.cache
def cpu_model() -> str:
    """The processor's name as the kernel gives it, with what tells apart those of one name."""
    fields = _first_processor()
    if "model name" not in fields:
        return platform.machine()
    numbers = "-".join(fields.get(key, "?") for key in ("cpu family", "model", "stepping"))
    return f"{fields['model name']} ({numbers})"


@functools.cache
def has_bf16() -> bool:
    """True if the processor has instructions for bfloat16."""
    return not _BF16_FLAGS.isdisjoint(_first_processor().get("flags", "").split())


def version_of(distribution: str) -> str:
    """Installed version of a distribution, without importing it; `none` if it is absent."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return "none"


def _first_processor() -> dict[str, str]:
    try:
        text = _CPUINFO.read_text(encoding="utf-8").partition("\n\n")[0]
    except OSError:
        return {}
    pairs = (line.partition(":") for line in text.splitlines())
    return {key.strip(): value.strip() for key, _, value in pairs}


def has_cuda() -> bool:
    """True if the kernel's driver for NVIDIA devices is there; torch says whether it works."""
    return Path("/proc/driver/nvidia/version").exists()
