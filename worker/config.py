"""The one configuration of a worker process, built once from flags, environment and machine.

Owns defaults and their reasons, and where the join token comes from. Everything
else is handed down from here; nothing reads the environment later.
"""

from __future__ import annotations

import argparse
import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from wire.address import Address, TcpAddress, UnixAddress, parse_address
from wire.errors import EnvironmentFault
from worker import machine
from worker.decode import PIXELS_MAX, DecodeLimits
from worker.engine import AUTO, Precision
from worker.faults import NULL_ENGINE, VARIABLE, Faults, parse_faults

TOKEN_VARIABLE = "LOOKOUT_TOKEN"  # noqa: S105 - the name of a variable, not a secret
BATCH_MAX_CPU = 4
"""A CPU gains 8 % from batches of 8 over single images; small ones keep latency low."""
PREFETCH_BATCHES = 2
PREFETCH_MIN = 4
DECODE_THREADS_MAX = 8
WEDGED_TIMEOUTS = 3.0
"""A decoder stuck for so many timeouts won't come back: the process replaces itself."""


@dataclass(frozen=True, slots=True)
class WorkerConfig:
    """Everything that a worker was told, and what follows from it.

    `streams` None means as many connections as the link's loss asks for.

    `executing_max` leases are in the pipeline at once: one batch inferring, one
    ready behind it, and one image in each decoding thread. `slots` adds what
    hides the round trip: two batches that wait here while the results of
    others travel, so that the pipeline stays full as long as a round trip takes
    less than two batches do (on a CPU, some 50 ms).
    """

    master: Address
    token: str | None = field(repr=False)
    token_source: str
    name: str | None
    engine: str
    precision: str
    exact: bool
    samples: Path | None
    threads: int
    decode_threads: int
    batch_max: int
    batch_wait_s: float
    executing_max: int
    slots: int
    streams: int | None
    cache: Path
    drain_timeout_s: float
    limits: DecodeLimits
    faults: Faults

    def shown(self) -> dict[str, object]:
        """What a log may say: everything but the token."""
        return {
            "master": self.master,
            "token_from": self.token_source,
            "engine": self.engine,
            "precision": self.precision,
            "preprocess": "exact" if self.exact else "fast",
            "calibration_images": self.samples,
            "threads": self.threads,
            "decode_threads": self.decode_threads,
            "batch_max": self.batch_max,
            "batch_wait_s": self.batch_wait_s,
            "executing_max": self.executing_max,
            "slots": self.slots,
            "streams": self.streams or "auto",
            "cache": self.cache,
            "drain_timeout_s": self.drain_timeout_s,
            "pixels_max": self.limits.pixels_max,
            "faults": self.faults if self.faults != Faults() else None,
        }


def build_config(flags: argparse.Namespace, environment: Mapping[str, str]) -> WorkerConfig:
    """Validate and complete what the flags say. Raises `EnvironmentFault` naming the flag."""
    master = parse_address(flags.master)
    token, token_source = _token(flags, environment, master)
    threads = flags.threads or machine.cores()
    decode_threads = min(DECODE_THREADS_MAX, max(1, threads // 2))
    batch_max = flags.batch or BATCH_MAX_CPU
    executing_max = decode_threads + 2 * batch_max
    slots = flags.slots or executing_max + max(PREFETCH_MIN, PREFETCH_BATCHES * batch_max)
    return WorkerConfig(
        master=master,
        token=token,
        token_source=token_source,
        name=flags.name,
        engine=flags.engine,
        precision=_precision(flags),
        exact=_is_exact(flags),
        samples=_samples(flags),
        threads=threads,
        decode_threads=decode_threads,
        batch_max=batch_max,
        batch_wait_s=flags.batch_wait / 1000.0,
        executing_max=min(executing_max, slots),
        slots=slots,
        streams=flags.streams,
        cache=_cache(flags.cache, environment),
        drain_timeout_s=flags.drain_timeout,
        limits=_limits(flags),
        faults=_faults(flags, environment),
    )


def _precision(flags: argparse.Namespace) -> str:
    """Images for int8 ask for int8, unless something else is named."""
    named: str = flags.precision
    return str(Precision.INT8) if flags.calibration_images and named == AUTO else named


def _is_exact(flags: argparse.Namespace) -> bool:
    """Whoever names fp32 wants torchvision's own numbers, unless the flag says otherwise."""
    if flags.preprocess is not None:
        return bool(flags.preprocess == "exact")
    return bool(flags.precision == Precision.FP32)


def _samples(flags: argparse.Namespace) -> Path | None:
    folder: Path | None = flags.calibration_images
    if folder is not None and not folder.is_dir():
        raise EnvironmentFault(
            "samples_missing",
            f"--calibration-images {folder} is no folder: name one with images in it",
        )
    return folder


def _limits(flags: argparse.Namespace) -> DecodeLimits:
    return DecodeLimits(
        pixels_max=flags.pixels_max or PIXELS_MAX,
        timeout_s=flags.decode_timeout,
        wedged_s=flags.decode_timeout * WEDGED_TIMEOUTS,
    )


def default_cache(environment: Mapping[str, str]) -> Path:
    """`$XDG_CACHE_HOME/lookout`, or `~/.cache/lookout`."""
    base = environment.get("XDG_CACHE_HOME", "")
    return (Path(base) if base else Path.home() / ".cache") / "lookout"


def local_token_file() -> Path:
    """Where `master up` leaves the join token on its own machine, by default."""
    return Path.home() / ".local" / "share" / "lookout" / "token"


def _cache(given: Path | None, environment: Mapping[str, str]) -> Path:
    return default_cache(environment) if given is None else given


def _token(
    flags: argparse.Namespace, environment: Mapping[str, str], master: Address
) -> tuple[str | None, str]:
    """The join token and where it comes from: flag, file, environment, this machine's master."""
    if flags.token is not None:
        return _checked(flags.token, "--token"), "--token"
    if flags.token_file is not None:
        return _read(flags.token_file), str(flags.token_file)
    if environment.get(TOKEN_VARIABLE):
        return _checked(environment[TOKEN_VARIABLE], TOKEN_VARIABLE), TOKEN_VARIABLE
    if _is_local(master) and local_token_file().is_file():
        return _read(local_token_file()), str(local_token_file())
    return None, "none"


def _read(path: Path) -> str:
    try:
        text = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise EnvironmentFault(
            "token_unreadable", f"can't read the join token from {path}: {error}"
        ) from error
    return _checked(text, str(path))


def _checked(token: str, source: str) -> str:
    if not token.strip():
        raise EnvironmentFault(
            "token_empty",
            f"the join token from {source} is empty: copy the `worker join` line that the "
            "master printed at start",
        )
    return token.strip()


def _is_local(master: Address) -> bool:
    if isinstance(master, UnixAddress):
        return True
    assert isinstance(master, TcpAddress)
    try:
        return ipaddress.ip_address(master.host).is_loopback
    except ValueError:
        return master.host == "localhost"


def _faults(flags: argparse.Namespace, environment: Mapping[str, str]) -> Faults:
    text = environment.get(VARIABLE, "")
    if flags.enable_fault_hooks:
        return parse_faults(text)
    if text or flags.engine == NULL_ENGINE:
        raise EnvironmentFault(
            "faults_not_enabled",
            f"{VARIABLE} and --engine {NULL_ENGINE} are for tests: they need --enable-fault-hooks",
        )
    return Faults()
