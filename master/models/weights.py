"""Slices of the weights file, for workers that fetch it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from wire.card import Card
from wire.errors import EnvironmentFault, LocalFault, PeerFault

# The limit of `wire.messages.FetchWeights.length`.
SLICE_BYTES_MAX: Final = 16 * 2**20


class WeightsFile:
    """The open file of one card; `read` may be called from any number of threads.

    The file stays open, so that replacing it by renaming disturbs nobody. A
    file changed in place would reach workers as a broken hash; `read` says so
    instead. Close it when no `read` runs.
    """

    def __init__(self, path: Path, card: Card) -> None:
        self.path = path
        self.card = card
        try:
            self._handle: int | None = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise EnvironmentFault(
                "weights_unreadable", f"can't read the weights {path}: {error.strerror}"
            ) from error
        self._written_ns = os.fstat(self._handle).st_mtime_ns
        try:
            self._check_unchanged(self._handle)
        except EnvironmentFault:
            self.close()
            raise

    def read(self, offset: int, length: int) -> bytes:
        """`length` bytes from `offset`, fewer at the end of the file, none at its very end.

        Raises:
            PeerFault: the slice is empty, larger than `SLICE_BYTES_MAX` or outside the file.
            EnvironmentFault: the file can't be read, or was changed in place.
        """
        if self._handle is None:
            raise LocalFault(f"{self.path} is closed")
        size_bytes = self.card.size_bytes
        if not 1 <= length <= SLICE_BYTES_MAX:
            raise PeerFault("bad_slice", f"length {length} is not in 1 to {SLICE_BYTES_MAX}")
        if not 0 <= offset <= size_bytes:
            raise PeerFault("bad_slice", f"offset {offset} is not in 0 to {size_bytes}")
        self._check_unchanged(self._handle)
        return self._read(self._handle, offset, min(length, size_bytes - offset))

    def _read(self, handle: int, offset: int, wanted: int) -> bytes:
        try:
            data = os.pread(handle, wanted, offset)
        except OSError as error:
            raise EnvironmentFault(
                "weights_unreadable", f"can't read the weights {self.path}: {error.strerror}"
            ) from error
        if len(data) < wanted:
            raise self._changed()
        return data

    def _check_unchanged(self, handle: int) -> None:
        now = os.fstat(handle)
        if now.st_size != self.card.size_bytes or now.st_mtime_ns != self._written_ns:
            raise self._changed()

    def _changed(self) -> EnvironmentFault:
        return EnvironmentFault(
            "weights_changed",
            f"{self.path} was changed while it is served (its card says {self.card.size_bytes} "
            "bytes): put the file back and restart the master; replace weights by renaming",
        )

    def close(self) -> None:
        """Close the file; a second call does nothing."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None

    def __enter__(self) -> WeightsFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
