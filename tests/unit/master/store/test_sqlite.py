"""The SQLite store keeps the contract of every store."""

from __future__ import annotations

from pathlib import Path

import pytest

from master.store import JobStore, StoreConfig, open_store
from tests.unit.master.store.contract import Opener, StoreContract


class TestSqlite(StoreContract):
    """With the settings of a real master."""

    @pytest.fixture
    def opener(self) -> Opener:
        return open_store


class TestSqliteWithSmallBounds(StoreContract):
    """Small groups, tiny segments and a checkpoint at every turn: the same behaviour."""

    @pytest.fixture
    def opener(self) -> Opener:
        def small(directory: Path) -> JobStore:
            config = StoreConfig(
                segment_bytes=1500,
                min_free_bytes=0,
                group_ops_max=3,
                group_bytes_max=2000,
                group_interval_s=0,
                checkpoint_rows=1,
            )
            return open_store(directory, config)

        return small
