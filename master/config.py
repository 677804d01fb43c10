"""The master's configuration: built once, validated, printed at start, passed down."""

from __future__ import annotations

import hashlib
import os
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from wire.errors import EnvironmentFault

HTTP_DEFAULT = "0.0.0.0:80"
HTTP_FALLBACK = "0.0.0.0:8080"
LISTEN_DEFAULT = "0.0.0.0:6550"
MODEL_DEFAULT = "googlenet"
SOCKET_PATH_BYTES_MAX = 108


def data_dir_default() -> Path:
    """`$XDG_DATA_HOME/lookout`, else `~/.local/share/lookout`."""
    base = os.environ.get("XDG_DATA_HOME")
    return (Path(base) if base else Path.home() / ".local" / "share") / "lookout"


@dataclass(frozen=True, slots=True)
class Limits:
    """Every bound of the core, by count, bytes or seconds."""

    queue_jobs_max: int = 1_000_000
    queue_bytes_max: int = 64 * 2**30
    image_bytes_max: int = 32 * 2**20
    # Images waiting for their group commit; past it a request is told to come back.
    intake_bytes_max: int = 256 * 2**20
    # Freshly accepted images kept in memory so that dispatch needn't read them back.
    window_bytes_max: int = 48 * 2**20
    open_submissions_max: int = 10_000
    waiters_max: int = 20_000
    # Accepted jobs whose view is kept in memory for waits and events (about 1 KiB each).
    recent_jobs_max: int = 8_192
    events_kept_max: int = 20_000
    gone_workers_kept_max: int = 64
    job_timeout_s_max: float = 7 * 86_400.0
    image_reads_at_once_max: int = 4


@dataclass(frozen=True, slots=True)
class CoreConfig:
    """What the core process needs to know.

    `listen` is where workers join, `web` where web processes connect (a Unix
    socket or HOST:PORT). `token` None means open mode: anybody may join.
    """

    data_dir: Path
    listen: str = LISTEN_DEFAULT
    web: str = ""
    model: str = MODEL_DEFAULT
    weights: Path | None = None
    offline: bool = False
    token: str | None = None
    heartbeat_interval_s: float = 0.5
    lease_ttl_s: float = 15.0
    drain_timeout_s: float = 10.0
    event_flush_s: float = 0.05
    stats_interval_s: float = 1.0
    limits: Limits = field(default_factory=Limits)
    log_format: str = "text"
    log_level: str = "info"

    def __post_init__(self) -> None:
        for name in ("heartbeat_interval_s", "lease_ttl_s", "drain_timeout_s", "event_flush_s"):
            value = getattr(self, name)
            if not 0 < value <= 3600:
                raise EnvironmentFault(
                    "bad_config", f"{name} is {value}; it must be above 0 and at most 3600 s"
                )
        if self.lease_ttl_s < 3 * self.heartbeat_interval_s:
            raise EnvironmentFault(
                "bad_config",
                f"lease_ttl_s is {self.lease_ttl_s}; give at least three heartbeat intervals "
                f"({3 * self.heartbeat_interval_s} s), or one lost packet looks like a death",
            )

    @property
    def given(self) -> tuple[str, str]:
        """The model as the flags name it, to see whether they changed since the last start."""
        return self.model, str(self.weights or "")

    @property
    def web_address(self) -> str:
        """Where web processes connect: by default a socket file of the data directory."""
        return self.web or f"unix:{socket_path(self.data_dir)}"


def socket_path(data_dir: Path) -> Path:
    """The core's socket file: `DIR/core.sock`, or a short name for it.

    The kernel keeps 108 bytes for such an address (unix(7)); for a data
    directory with a longer path it lies in the user's runtime folder, under a
    name made from that path.
    """
    path = data_dir / "core.sock"
    if len(os.fsencode(path)) < SOCKET_PATH_BYTES_MAX:
        return path
    runtime = os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir()
    digest = hashlib.sha256(os.fsencode(data_dir)).hexdigest()[:16]
    return Path(runtime) / f"lookout-{os.getuid()}-{digest}.sock"
