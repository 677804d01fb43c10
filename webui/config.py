"""Everything a web process is told, frozen, with each bound named."""

from __future__ import annotations

from dataclasses import dataclass, field

KIB = 2**10
MIB = 2**20
GIB = 2**30


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one web process. Sizes are bytes, times are seconds."""

    image_bytes: int = 32 * MIB
    request_bytes: int = 4 * GIB
    request_images: int = 10_000
    small_body_bytes: int = 256 * KIB
    form_header_bytes: int = 8 * KIB

    # Uploads and downloads that this process holds in memory, all requests together.
    memory_bytes: int = 512 * MIB

    # A body must keep coming: this long between two pieces, and on average at least
    # `body_bytes_per_s` once `body_grace_s` are over.
    body_idle_s: float = 20.0
    body_grace_s: float = 20.0
    body_bytes_per_s: float = 1024.0
    send_stall_s: float = 60.0

    wait_s: float = 120.0
    classify_s: float = 120.0
    core_call_s: float = 10.0
    core_submit_s: float = 60.0
    core_patience_s: float = 2.0
    calls_in_flight: int = 4096

    # One `Submit` message carries about this much of a submission.
    part_bytes: int = 4 * MIB
    part_images: int = 256

    # Open connections of this process: event streams, slow senders and everybody else.
    connections: int = 10_000

    flask_threads: int = 16
    flask_queue: int = 512

    sse_clients: int = 4000
    sse_client_bytes: int = 2 * MIB
    sse_history_events: int = 8192
    # Events are gathered for `sse_flush_s`, and longer while many listen: a flush
    # costs a write per client.
    sse_flush_s: float = 0.1
    sse_flush_per_client_s: float = 0.002
    sse_flush_max_s: float = 1.0
    sse_heartbeat_s: float = 15.0

    fetch_bytes: int = 32 * MIB
    fetch_s: float = 30.0
    fetch_redirects: int = 5
    fetches: int = 16

    thumbnail_px: int = 320
    thumbnail_source_pixels: int = 40_000_000
    thumbnail_cache_bytes: int = 64 * MIB
    thumbnail_threads: int = 2


@dataclass(frozen=True, slots=True)
class Config:
    """One web process: where it listens, which core it serves, what it allows."""

    host: str
    port: int
    core: str
    token: str | None = None
    processes: int = 1
    allow_hosts: tuple[str, ...] = ()
    allow_private_urls: bool = False
    die_with_parent: bool = False
    log_format: str = "text"
    log_level: str = "info"
    drain_s: float = 5.0
    limits: Limits = field(default_factory=Limits)
