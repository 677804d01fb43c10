"""What several tests of the worker share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.worker.training import make_dataset


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Put torch's threads back: runs of training set their number for the whole process."""
    import torch

    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder per colour."""
    return make_dataset(tmp_path_factory.mktemp("data") / "colours")
