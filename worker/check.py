"""`worker check`: what this machine can do, in lines that a person and `grep` can read."""

from __future__ import annotations

import os
import platform
import shutil
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import features

from wire.errors import EnvironmentFault
from worker import machine
from worker.config import BATCH_MAX_CPU, default_cache
from worker.formats import SUPPORTED_TEXT

if TYPE_CHECKING:
    import torch
    from torch import nn

TRIAL_MODEL = "googlenet"
TRIAL_PX = 224
TRIAL_S = 2.0


def report(cache: Path | None, environment: Mapping[str, str]) -> None:
    """Print machine, formats, cache and engines, with a short trial of each engine."""
    _say("python", f"{platform.python_version()} on {platform.platform()}")
    cores, bf16 = machine.cores(), ", bf16" if machine.has_bf16() else ""
    _say("cpu", f"{cores} cores, {machine.cpu_model()}{bf16}")
    _say("memory", f"{_memory_bytes() / 2**30:.1f} GiB")
    _say("images", f"{SUPPORTED_TEXT} (jpeg-turbo: {_yes(features.check('libjpeg_turbo'))})")
    folder = cache or default_cache(environment)
    _say("cache", f"{folder}, {_free_bytes(folder) / 2**30:.1f} GiB free")
    _say("engine torch", _torch(cores))
    _say("engine openvino", machine.version_of("openvino"))


def _torch(threads: int) -> str:
    try:
        import torch

        from worker.models import build
    except ImportError as error:
        return f"missing ({error}): install lookout[worker]"
    try:
        model = build(TRIAL_MODEL, 1000).eval()
    except EnvironmentFault as fault:
        return f"torch {torch.__version__}, but {fault.reason}"
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.set_num_threads(threads)
    rate = _rate_per_s(model.to(device), device)
    where = torch.cuda.get_device_name() if device.type == "cuda" else f"cpu, {threads} threads"
    return f"torch {torch.__version__}, {where}: {rate:.0f} images/s of {TRIAL_MODEL}, fp32"


def _rate_per_s(model: nn.Module, device: torch.device) -> float:
    import torch

    shape = (BATCH_MAX_CPU, 3, TRIAL_PX, TRIAL_PX)
    images = torch.from_numpy(np.zeros(shape, dtype=np.float32)).to(device)
    with torch.inference_mode():
        model(images).cpu()
        began_s, n = time.monotonic(), 0
        while time.monotonic() - began_s < TRIAL_S:
            model(images).cpu()
            n += BATCH_MAX_CPU
    return n / (time.monotonic() - began_s)


def _memory_bytes() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _free_bytes(folder: Path) -> int:
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    return shutil.disk_usage(existing).free


def _yes(value: bool | None) -> str:
    return "yes" if value else "no"


def _say(what: str, text: str) -> None:
    sys.stdout.write(f"{what + ':':<17} {text}\n")
