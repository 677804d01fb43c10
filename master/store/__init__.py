"""The durable job table: `open_store` gives a `JobStore`."""

from __future__ import annotations

from pathlib import Path

from master.store.base import JobStore
from master.store.config import StoreConfig
from master.store.sqlite import SqliteStore
from master.store.stats import StoreStats

__all__ = ["JobStore", "SqliteStore", "StoreConfig", "StoreStats", "open_store"]


def open_store(data_dir: Path, config: StoreConfig | None = None) -> SqliteStore:
    """Claim `data_dir` and open its job table; see `SqliteStore` for what is raised."""
    return SqliteStore(data_dir, config or StoreConfig())
